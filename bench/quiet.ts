// graphile-worker reads this as it loads: without it each job builds a log line that nobody reads.
process.env.NO_LOG_SUCCESS = "1";
