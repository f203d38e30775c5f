// The benchmark's load generator: the standard library only.
module keyturn.dev/dev/loadgen

go 1.24.0
