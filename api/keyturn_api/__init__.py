"""The API: issues tokens, answers what they say, and makes the authorization check for gateways."""
