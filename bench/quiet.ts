// graphile-worker reads this as it loads. Without it each job builds a log line without a reader.
process.env.NO_LOG_SUCCESS = "1";
