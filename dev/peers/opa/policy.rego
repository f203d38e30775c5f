# The gateway check as an OPA policy: verify the RS256 token, take the most specific route, require one of its permissions.
package authz

default allow := false

claims := payload if {
	[valid, _, payload] := io.jwt.decode_verify(input.token, {
		"cert": data.bench.key,
		"alg": "RS256",
		"iss": data.bench.issuer,
		"aud": "https://api.example",
	})
	valid
}

segments := split(trim(input.path, "/"), "/")

matching := [permissions |
	some i in numbers.range(1, count(segments))
	permissions := data.bench.routes[concat("/", array.slice(segments, 0, i))][input.method]
]

allow if {
	some required in matching[count(matching) - 1]
	required in claims.permissions
}
