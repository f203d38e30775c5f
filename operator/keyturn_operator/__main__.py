"""`python -m keyturn_operator`."""

from keyturn_operator.main import main

main()
