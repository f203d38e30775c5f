"""The page of `keyturn console` in a real browser, over a real API server and a running installation."""
