"""What a sweep's results say: data frames in, data frames and sentences out; no matplotlib."""
