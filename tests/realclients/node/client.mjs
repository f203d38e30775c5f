// openid-client and jose as their documentation shows them. One scenario a run: its input is JSON on stdin, its result JSON on stdout.
import * as client from 'openid-client'
import * as jose from 'jose'

const key = async ({ key, algorithm }) => {
  const jwk = await jose.importJWK(key, algorithm)
  return { key: jwk, kid: key.kid }
}

// What each scenario does with its token: a protected resource is asked with it.
const used = async (config, input, tokens) => {
  const resource = await client.fetchProtectedResource(config, tokens.access_token, new URL(`${input.issuer}/tokeninfo`), 'GET')
  return { ...tokens, status: resource.status, info: await resource.json() }
}

const configuration = async (input) => {
  const server = new URL(input.issuer)
  if (input.key === undefined) {
    return client.discovery(server, input.client_id, input.client_secret)
  }
  const options = {}
  if (input.rename_ed25519) {
    // The library writes the name of RFC 9864; this is its documented way to the older one.
    options[client.modifyAssertion] = (header) => {
      if (header.alg === 'Ed25519') header.alg = 'EdDSA'
    }
  }
  if (input.audience_claim) {
    options[client.modifyAssertion] = (_header, payload) => {
      payload.aud = input.audience_claim
    }
  }
  return client.discovery(server, input.client_id, undefined, client.PrivateKeyJwt(await key(input), options))
}

const scenarios = {
  async grant(input) {
    const config = await configuration(input)
    return used(config, input, await client.clientCredentialsGrant(config, input.parameters ?? {}))
  },

  async grantByBasic(input) {
    const basic = client.ClientSecretBasic(input.client_secret)
    const config = await client.discovery(new URL(input.issuer), input.client_id, undefined, basic)
    return used(config, input, await client.clientCredentialsGrant(config, input.parameters ?? {}))
  },

  async refusal(input) {
    const config = await configuration(input)
    try {
      await client.clientCredentialsGrant(config, input.parameters ?? {})
    } catch (error) {
      return { kind: error.constructor.name, status: error.status, error: error.error, challenges: error.cause?.length }
    }
    return {}
  },

  async verify(input) {
    const config = await client.discovery(new URL(input.issuer), 'resource-server', undefined, client.None())
    const server = config.serverMetadata()
    const keys = jose.createRemoteJWKSet(new URL(server.jwks_uri))
    const { payload, protectedHeader } = await jose.jwtVerify(input.token, keys, {
      issuer: server.issuer,
      audience: input.audience,
      typ: 'at+jwt',
    })
    return { payload, protectedHeader }
  },

  async introspectAndRevoke(input) {
    const config = await configuration(input)
    const tokens = await client.clientCredentialsGrant(config)
    const before = await client.tokenIntrospection(config, tokens.access_token)
    await client.tokenRevocation(config, tokens.access_token)
    const after = await client.tokenIntrospection(config, tokens.access_token)
    return { ...tokens, before, after }
  },

  async register(input) {
    const options = { initialAccessToken: input.initial_access_token }
    // Whatever the server says, the library sends a secret in the body unless it is told otherwise.
    const auths = {
      client_secret_basic: () => client.ClientSecretBasic(),
      private_key_jwt: async () => client.PrivateKeyJwt(await key(input)),
    }
    const auth = await auths[input.metadata.token_endpoint_auth_method]?.()
    const config = await client.dynamicClientRegistration(new URL(input.issuer), input.metadata, auth, options)
    const tokens = await client.clientCredentialsGrant(config)
    return { ...(await used(config, input, tokens)), client: config.clientMetadata() }
  },
}

let text = ''
for await (const part of process.stdin) text += part
const { scenario, ...input } = JSON.parse(text)
try {
  process.stdout.write(JSON.stringify(await scenarios[scenario](input)))
} catch (error) {
  console.error(error)
  process.exitCode = 1
}
