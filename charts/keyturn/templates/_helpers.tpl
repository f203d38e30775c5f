{{- define "keyturn.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- /* The parts' suffixes must fit behind it: a Service's name has 63 characters at most, a StatefulSet's pod adds "-0", and its
controller's label a hash of ten. */}}
{{- define "keyturn.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- if gt (len $full) 40 -}}
{{- /* Two long names that begin alike must stay two. */ -}}
{{- printf "%s-%s" ($full | trunc 33 | trimSuffix "-") ($full | sha256sum | trunc 6) -}}
{{- else -}}
{{- $full -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Names of cluster-scoped objects hold namespace and release. */}}
{{- define "keyturn.clusterName" -}}
{{- printf "keyturn.%s.%s" .Release.Namespace .Release.Name -}}
{{- end -}}

{{- define "keyturn.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
app.kubernetes.io/name: {{ include "keyturn.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* What a selector names never changes: no version, no label of the user's. */}}
{{- define "keyturn.selector" -}}
app.kubernetes.io/name: {{ include "keyturn.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- /* A setting's value as text. Helm reads the numbers of a file as floats, which would print as 1.048576e+06. */}}
{{- define "keyturn.settingValue" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) -}}
{{- printf "%.0f" . | quote -}}
{{- else -}}
{{- . | toString | quote -}}
{{- end -}}
{{- end -}}

{{- define "keyturn.image" -}}
{{- printf "%s:%s" .image.repository (default .root.Chart.AppVersion .image.tag) -}}
{{- end -}}

{{- define "keyturn.issuer" -}}
{{- required "issuer is required: --set issuer=https://<where callers reach the token service>" .Values.issuer -}}
{{- end -}}

{{- define "keyturn.publicHost" -}}
{{- (urlParse (default (include "keyturn.issuer" .) .Values.publicUrl)).hostname -}}
{{- end -}}

{{- /* The path in front of every endpoint: that of the URL which callers are told, unless the setting says otherwise. */}}
{{- define "keyturn.prefix" -}}
{{- if hasKey .Values.api.settings "KEYTURN_SERVICE_PREFIX" -}}
{{- index .Values.api.settings "KEYTURN_SERVICE_PREFIX" | toString | trimSuffix "/" -}}
{{- else -}}
{{- (urlParse (default (include "keyturn.issuer" .) .Values.publicUrl)).path | trimSuffix "/" -}}
{{- end -}}
{{- end -}}

{{- /* What the programs tell callers as the base of every endpoint's URL. */}}
{{- define "keyturn.baseUrl" -}}
{{- $issuer := include "keyturn.issuer" . | trimSuffix "/" -}}
{{- $prefix := include "keyturn.prefix" . -}}
{{- if .Values.publicUrl -}}
{{- .Values.publicUrl | trimSuffix "/" -}}
{{- else if hasSuffix $prefix (urlParse $issuer).path -}}
{{- $issuer -}}
{{- else -}}
{{- printf "%s%s" $issuer $prefix -}}
{{- end -}}
{{- end -}}

{{- /* Published are the paths that the API serves: callers must be told just those. */}}
{{- define "keyturn.checkPublished" -}}
{{- $told := (urlParse (include "keyturn.baseUrl" .)).path -}}
{{- $served := include "keyturn.prefix" . -}}
{{- if ne $told $served -}}
{{- fail (printf "callers are told that the endpoints lie under %q, and the route publishes them under %q: leave KEYTURN_SERVICE_PREFIX out of api.settings, or set publicUrl to a URL with that path" (default "/" $told) (default "/" $served)) -}}
{{- end -}}
{{- end -}}

{{- define "keyturn.signingKeySecret" -}}
{{- default .Values.signingKey.name .Values.signingKey.secretName -}}
{{- end -}}

{{- define "keyturn.bundled" -}}
{{- if not .Values.store.existingSecret }}true{{ end -}}
{{- end -}}

{{- define "keyturn.postgresqlSecret" -}}
{{- default (printf "%s-postgresql" (include "keyturn.fullname" .)) .Values.postgresql.auth.existingSecret -}}
{{- end -}}

{{- define "keyturn.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "keyturn.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- /* What operator and API read alike: the store, the issuer. */}}
{{- define "keyturn.sharedEnvironment" -}}
- name: KEYTURN_ISSUER
  value: {{ include "keyturn.issuer" . | quote }}
{{- with .Values.publicUrl }}
- name: KEYTURN_PUBLIC_URL
  value: {{ . | quote }}
{{- end }}
{{- with include "keyturn.prefix" . }}
- name: KEYTURN_SERVICE_PREFIX
  value: {{ . | quote }}
{{- end }}
- name: KEYTURN_SIGNING_KEY
  value: {{ .Values.signingKey.name | quote }}
{{- if include "keyturn.bundled" . }}
- name: KEYTURN_STORE_PASSWORD
  valueFrom:
    secretKeyRef: {name: {{ include "keyturn.postgresqlSecret" . }}, key: password}
- name: KEYTURN_STORE_URL
  value: {{ printf "postgresql://keyturn@%s-postgresql:5432/keyturn" (include "keyturn.fullname" .) | quote }}
- name: KEYTURN_STORE_TLS
  value: disable
{{- else }}
- name: KEYTURN_STORE_URL
  valueFrom:
    secretKeyRef: {name: {{ .Values.store.existingSecret }}, key: {{ .Values.store.urlKey }}}
{{- with .Values.store.listenUrlKey }}
- name: KEYTURN_STORE_LISTEN_URL
  valueFrom:
    secretKeyRef: {name: {{ $.Values.store.existingSecret }}, key: {{ . }}}
{{- end }}
- name: KEYTURN_STORE_TLS
  value: {{ .Values.store.tls.mode | quote }}
{{- if .Values.store.tls.caKey }}
- name: KEYTURN_STORE_CA_FILE
  value: /var/run/keyturn/store/ca.crt
{{- end }}
{{- if .Values.store.pgbouncer }}
- name: KEYTURN_STORE_PREPARED
  value: "false"
{{- end }}
{{- end }}
- name: KEYTURN_STORE_POOL_SIZE
  value: {{ .Values.store.poolSize | quote }}
- name: KEYTURN_STORE_STATEMENT_TIMEOUT
  value: {{ .Values.store.statementTimeout | quote }}
{{- end -}}

{{- define "keyturn.storeVolume" -}}
{{- if and .Values.store.existingSecret .Values.store.tls.caKey }}
- name: store
  secret:
    secretName: {{ .Values.store.existingSecret }}
    items: [{key: {{ .Values.store.tls.caKey }}, path: ca.crt}]
{{- end }}
{{- end -}}

{{- define "keyturn.storeMount" -}}
{{- if and .Values.store.existingSecret .Values.store.tls.caKey }}
- {name: store, mountPath: /var/run/keyturn/store, readOnly: true}
{{- end }}
{{- end -}}

{{- /* What is cluster-scoped, where the installer may make it. */}}
{{- define "keyturn.administration" -}}
{{- if and .Values.clusterRights .Values.administration.enabled }}true{{ end -}}
{{- end -}}

{{- define "keyturn.admissionPolicy" -}}
{{- if and .Values.clusterRights .Values.admissionPolicy.enabled }}true{{ end -}}
{{- end -}}

{{- /* Namespaces whose objects count, besides those of the scope All. */}}
{{- define "keyturn.namespaces" -}}
{{- if eq .Values.watch.scope "All" -}}
*
{{- else -}}
{{- prepend (ternary .Values.watch.namespaces list (eq .Values.watch.scope "List")) .Release.Namespace | uniq | join "," -}}
{{- end -}}
{{- end -}}

{{- define "keyturn.publicPaths" -}}
{{- $prefix := include "keyturn.prefix" . -}}
{{- $paths := list "/oauth/token" "/oauth/introspect" "/oauth/revoke" "/register" "/tokeninfo" "/.well-known/jwks.json" "/.well-known/openid-configuration" "/.well-known/oauth-authorization-server" -}}
{{- $all := list -}}
{{- range $paths -}}
{{- $all = append $all (dict "path" (printf "%s%s" $prefix .) "type" "Exact") -}}
{{- end -}}
{{- /* A registration's own address (RFC 7592) lies below /register; RFC 8414 puts an issuer's path behind the well-known one. */ -}}
{{- $all = append $all (dict "path" (printf "%s/register/" $prefix) "type" "Prefix") -}}
{{- $issuerPath := (urlParse (include "keyturn.issuer" .)).path | trimSuffix "/" -}}
{{- if $issuerPath -}}
{{- range list "openid-configuration" "oauth-authorization-server" -}}
{{- $all = append $all (dict "path" (printf "/.well-known/%s%s" . $issuerPath) "type" "Exact") -}}
{{- end -}}
{{- end -}}
{{- toJson (dict "paths" $all) -}}
{{- end -}}
