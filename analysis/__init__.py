"""From a sweep's Parquet files to tables, figures and a report; needs neither torch nor Ray."""
