import com.nimbusds.jose.JOSEObjectType;
import com.nimbusds.jose.JWSAlgorithm;
import com.nimbusds.jose.jwk.AsymmetricJWK;
import com.nimbusds.jose.jwk.JWK;
import com.nimbusds.jose.jwk.JWKSet;
import com.nimbusds.jose.jwk.source.JWKSource;
import com.nimbusds.jose.jwk.source.JWKSourceBuilder;
import com.nimbusds.jose.proc.DefaultJOSEObjectTypeVerifier;
import com.nimbusds.jose.proc.JWSVerificationKeySelector;
import com.nimbusds.jose.proc.SecurityContext;
import com.nimbusds.jwt.JWTClaimsSet;
import com.nimbusds.jwt.SignedJWT;
import com.nimbusds.jwt.proc.DefaultJWTClaimsVerifier;
import com.nimbusds.jwt.proc.DefaultJWTProcessor;
import com.nimbusds.oauth2.sdk.ClientCredentialsGrant;
import com.nimbusds.oauth2.sdk.GrantType;
import com.nimbusds.oauth2.sdk.Scope;
import com.nimbusds.oauth2.sdk.TokenErrorResponse;
import com.nimbusds.oauth2.sdk.TokenIntrospectionRequest;
import com.nimbusds.oauth2.sdk.TokenIntrospectionResponse;
import com.nimbusds.oauth2.sdk.TokenRequest;
import com.nimbusds.oauth2.sdk.TokenResponse;
import com.nimbusds.oauth2.sdk.TokenRevocationRequest;
import com.nimbusds.oauth2.sdk.as.AuthorizationServerMetadata;
import com.nimbusds.oauth2.sdk.auth.ClientAuthentication;
import com.nimbusds.oauth2.sdk.auth.ClientAuthenticationMethod;
import com.nimbusds.oauth2.sdk.auth.ClientSecretBasic;
import com.nimbusds.oauth2.sdk.auth.ClientSecretPost;
import com.nimbusds.oauth2.sdk.auth.JWTAuthenticationClaimsSet;
import com.nimbusds.oauth2.sdk.auth.PrivateKeyJWT;
import com.nimbusds.oauth2.sdk.auth.Secret;
import com.nimbusds.oauth2.sdk.client.ClientInformation;
import com.nimbusds.oauth2.sdk.client.ClientMetadata;
import com.nimbusds.oauth2.sdk.client.ClientRegistrationRequest;
import com.nimbusds.oauth2.sdk.client.ClientRegistrationResponse;
import com.nimbusds.oauth2.sdk.http.HTTPRequest;
import com.nimbusds.oauth2.sdk.http.HTTPResponse;
import com.nimbusds.oauth2.sdk.id.Audience;
import com.nimbusds.oauth2.sdk.id.ClientID;
import com.nimbusds.oauth2.sdk.id.Issuer;
import com.nimbusds.oauth2.sdk.id.JWTID;
import com.nimbusds.oauth2.sdk.token.AccessToken;
import com.nimbusds.oauth2.sdk.token.BearerAccessToken;
import com.nimbusds.oauth2.sdk.util.JSONObjectUtils;
import com.nimbusds.openid.connect.sdk.op.OIDCProviderMetadata;
import java.net.URI;
import java.net.URL;
import java.nio.charset.StandardCharsets;
import java.security.PrivateKey;
import java.util.Date;
import java.util.Set;
import net.minidev.json.JSONObject;

/** The Nimbus OAuth 2.0 SDK and JOSE library as their documentation shows them: one scenario a run, JSON in, JSON out. */
public final class Client {
  private Client() {}

  public static void main(String[] arguments) throws Exception {
    String text = new String(System.in.readAllBytes(), StandardCharsets.UTF_8);
    JSONObject in = JSONObjectUtils.parse(text);
    JSONObject out =
        switch (in.getAsString("scenario")) {
          case "grant" -> grant(in);
          case "verify" -> verify(in);
          case "introspectAndRevoke" -> introspectAndRevoke(in);
          case "register" -> register(in);
          default -> throw new IllegalArgumentException(in.getAsString("scenario"));
        };
    System.out.print(out.toJSONString());
  }

  private static AuthorizationServerMetadata metadata(JSONObject in) throws Exception {
    return AuthorizationServerMetadata.resolve(new Issuer(in.getAsString("issuer")));
  }

  private static ClientAuthentication authentication(JSONObject in, URI tokenEndpoint) throws Exception {
    ClientID clientID = new ClientID(in.getAsString("client_id"));
    String method = in.getAsString("method");
    if (method.equals("client_secret_basic")) {
      return new ClientSecretBasic(clientID, new Secret(in.getAsString("client_secret")));
    }
    if (method.equals("client_secret_post")) {
      return new ClientSecretPost(clientID, new Secret(in.getAsString("client_secret")));
    }
    JWK jwk = JWK.parse(JSONObjectUtils.getJSONObject(in, "key"));
    PrivateKey key = ((AsymmetricJWK) jwk).toPrivateKey();
    JWSAlgorithm algorithm = JWSAlgorithm.parse(in.getAsString("algorithm"));
    String audience = in.getAsString("audience_claim");
    if (audience == null) {
      return new PrivateKeyJWT(clientID, tokenEndpoint, algorithm, key, jwk.getKeyID(), null);
    }
    // The constructor for all claims: the shorter ones leave out `iat`, which a service may ask for.
    Date now = new Date();
    Date end = new Date(now.getTime() + 60_000);
    JWTAuthenticationClaimsSet claims =
        new JWTAuthenticationClaimsSet(
            clientID, new Audience(audience).toSingleAudienceList(), end, null, now, new JWTID());
    return new PrivateKeyJWT(claims, algorithm, key, jwk.getKeyID(), null);
  }

  private static JSONObject grant(JSONObject in) throws Exception {
    URI tokenEndpoint = metadata(in).getTokenEndpointURI();
    TokenRequest.Builder builder =
        new TokenRequest.Builder(tokenEndpoint, authentication(in, tokenEndpoint), new ClientCredentialsGrant());
    if (in.getAsString("scope") != null) {
      builder.scope(Scope.parse(in.getAsString("scope")));
    }
    TokenResponse response = TokenResponse.parse(builder.build().toHTTPRequest().send());
    JSONObject out = new JSONObject();
    if (!response.indicatesSuccess()) {
      TokenErrorResponse error = response.toErrorResponse();
      out.put("error", error.getErrorObject().getCode());
      out.put("status", error.getErrorObject().getHTTPStatusCode());
      return out;
    }
    AccessToken token = response.toSuccessResponse().getTokens().getAccessToken();
    HTTPRequest use = new HTTPRequest(HTTPRequest.Method.GET, new URL(in.getAsString("issuer") + "/tokeninfo"));
    use.setAuthorization(token.toAuthorizationHeader());
    HTTPResponse answer = use.send();
    out.put("access_token", token.getValue());
    out.put("token_type", token.getType().getValue());
    out.put("expires_in", token.getLifetime());
    out.put("scope", token.getScope() == null ? null : token.getScope().toString());
    out.put("status", answer.getStatusCode());
    out.put("info", answer.getBodyAsJSONObject());
    return out;
  }

  private static JSONObject verify(JSONObject in) throws Exception {
    OIDCProviderMetadata server = OIDCProviderMetadata.resolve(new Issuer(in.getAsString("issuer")));
    JWKSource<SecurityContext> keys = JWKSourceBuilder.create(server.getJWKSetURI().toURL()).retrying(true).build();
    DefaultJWTProcessor<SecurityContext> processor = new DefaultJWTProcessor<>();
    processor.setJWSTypeVerifier(new DefaultJOSEObjectTypeVerifier<>(new JOSEObjectType("at+jwt")));
    processor.setJWSKeySelector(new JWSVerificationKeySelector<>(Set.copyOf(server.getIDTokenJWSAlgs()), keys));
    processor.setJWTClaimsSetVerifier(
        new DefaultJWTClaimsVerifier<>(
            in.getAsString("audience"),
            new JWTClaimsSet.Builder().issuer(server.getIssuer().getValue()).build(),
            Set.of("sub", "iat", "exp", "jti", "client_id")));
    JWTClaimsSet claims = processor.process(SignedJWT.parse(in.getAsString("token")), null);
    JSONObject out = new JSONObject();
    out.put("payload", claims.toJSONObject());
    return out;
  }

  private static JSONObject introspectAndRevoke(JSONObject in) throws Exception {
    AuthorizationServerMetadata server = metadata(in);
    URI tokenEndpoint = server.getTokenEndpointURI();
    AccessToken token =
        TokenResponse.parse(
                new TokenRequest.Builder(tokenEndpoint, authentication(in, tokenEndpoint), new ClientCredentialsGrant())
                    .build()
                    .toHTTPRequest()
                    .send())
            .toSuccessResponse()
            .getTokens()
            .getAccessToken();
    JSONObject out = new JSONObject();
    out.put("access_token", token.getValue());
    out.put("before", introspect(in, server, token));
    HTTPResponse revoked =
        new TokenRevocationRequest(server.getRevocationEndpointURI(), authentication(in, tokenEndpoint), token)
            .toHTTPRequest()
            .send();
    out.put("revoked", revoked.getStatusCode());
    out.put("after", introspect(in, server, token));
    return out;
  }

  private static JSONObject introspect(JSONObject in, AuthorizationServerMetadata server, AccessToken token)
      throws Exception {
    ClientAuthentication caller = authentication(in, server.getTokenEndpointURI());
    TokenIntrospectionResponse response =
        TokenIntrospectionResponse.parse(
            new TokenIntrospectionRequest(server.getIntrospectionEndpointURI(), caller, token).toHTTPRequest().send());
    return response.toSuccessResponse().toJSONObject();
  }

  private static JSONObject register(JSONObject in) throws Exception {
    AuthorizationServerMetadata server = metadata(in);
    ClientMetadata wanted = new ClientMetadata();
    wanted.setGrantTypes(Set.of(GrantType.CLIENT_CREDENTIALS));
    wanted.setName("A Java client");
    wanted.setTokenEndpointAuthMethod(ClientAuthenticationMethod.parse(in.getAsString("method")));
    if (in.containsKey("key")) {
      wanted.setJWKSet(new JWKSet(JWK.parse(JSONObjectUtils.getJSONObject(in, "key")).toPublicJWK()));
    }
    BearerAccessToken initial = new BearerAccessToken(in.getAsString("initial_access_token"));
    HTTPResponse answer =
        new ClientRegistrationRequest(server.getRegistrationEndpointURI(), wanted, initial).toHTTPRequest().send();
    ClientInformation client = ClientRegistrationResponse.parse(answer).toSuccessResponse().getClientInformation();
    in.put("client_id", client.getID().getValue());
    in.put("client_secret", client.getSecret() == null ? null : client.getSecret().getValue());
    JSONObject out = grant(in);
    out.put("client_id", client.getID().getValue());
    return out;
  }
}
