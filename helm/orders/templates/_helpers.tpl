{{/* Chart name, as in the label app.kubernetes.io/name. */}}
{{- define "orders.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 45 | trimSuffix "-" }}
{{- end }}

{{/* Prefix of all object names. At most 45 characters, to leave room for "-api-server" and the suffixes that Deployments add. */}}
{{- define "orders.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 45 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 45 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 45 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{/* Prefix of the names of cluster-scoped objects. It contains the namespace, since two namespaces may use the same release name. */}}
{{- define "orders.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "orders.fullname" .) }}
{{- end }}

{{/* Labels of every object. */}}
{{- define "orders.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: {{ include "orders.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: orders
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/*
The argument of the following templates is a component: (dict "root" $ "name" "api-server" "values" .Values.apiServer).
*/}}

{{- define "orders.component.name" -}}
{{- printf "%s-%s" (include "orders.fullname" .root) .name }}
{{- end }}

{{- define "orders.component.labels" -}}
{{ include "orders.labels" .root }}
app.kubernetes.io/component: {{ .name }}
{{- end }}

{{- define "orders.component.selector" -}}
app.kubernetes.io/name: {{ include "orders.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .name }}
{{- end }}

{{- define "orders.component.image" -}}
{{- $image := .root.Values.image -}}
{{- with $image.registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{ .values.image.repository }}
{{- with .values.image.digest }}@{{ . }}{{ else }}:{{ default .root.Chart.AppVersion $image.tag }}{{ end }}
{{- end }}

{{/* The number of replicas, unless an autoscaler or `kubectl scale` sets it (null). */}}
{{- define "orders.component.replicas" -}}
{{- if not (kindIs "invalid" .values.replicas) }}
replicas: {{ .values.replicas | int64 }}
{{- end }}
{{- end }}

{{/* "true" if there may be several replicas, else empty. */}}
{{- define "orders.component.isReplicated" -}}
{{- if or (kindIs "invalid" .values.replicas) (gt (int64 .values.replicas) 1) }}true{{ end }}
{{- end }}

{{/* Full user name of a component's service account, as TokenReview reports it. */}}
{{- define "orders.component.account" -}}
system:serviceaccount:{{ .root.Release.Namespace }}:{{ include "orders.component.name" . }}
{{- end }}

{{/* Labels of the pods. None of them changes with the chart's version, since a change would restart the pods. */}}
{{- define "orders.component.podLabels" -}}
{{ include "orders.component.selector" . }}
app.kubernetes.io/part-of: orders
{{- with .values.podLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Annotations of the pods. "secret" is the manifest of the Secret whose change must restart the pods. */}}
{{- define "orders.component.podAnnotations" -}}
{{- with .secret }}
checksum/config: {{ (. | fromYaml).data | toJson | sha256sum }}
{{- end }}
{{- if and .values.database .root.Values.ca.certificates }}
checksum/ca: {{ .root.Values.ca.certificates | sha256sum }}
{{- end }}
{{- if .root.Values.metrics.annotations }}
prometheus.io/scrape: "true"
prometheus.io/port: "9090"
prometheus.io/path: /metrics
{{- end }}
{{- with .values.podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Annotations of objects that outlive the release, for Helm and for Argo CD. */}}
{{- define "orders.keep" -}}
helm.sh/resource-policy: keep
argocd.argoproj.io/sync-options: Delete=false,Prune=false
{{- end }}

{{/* The PersistentVolumeClaim of a component that stores data, unless the user names an existing claim. */}}
{{- define "orders.component.claim" -}}
{{- $p := .values.persistence }}
{{- if not $p.existingClaim -}}
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: {{ include "orders.component.name" . }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "orders.component.labels" . | nindent 4 }}
  {{- if $p.keep }}
  annotations:
    {{- include "orders.keep" .root | nindent 4 }}
  {{- end }}
spec:
  accessModes: [ReadWriteOnce]
  {{- with $p.storageClass }}
  storageClassName: {{ . }}
  {{- end }}
  resources:
    requests:
      storage: {{ $p.size }}
{{- end }}
{{- end }}

{{/* The part of a pod's spec with its service account, security context and scheduling. */}}
{{- define "orders.component.pod" -}}
serviceAccountName: {{ include "orders.component.name" . }}
enableServiceLinks: false
terminationGracePeriodSeconds: {{ default 30 .gracePeriod }}
{{ include "orders.podSecurity" .root }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if include "orders.component.isReplicated" . }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "orders.component.selector" . | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
{{- end }}
{{- include "orders.scheduling" . }}
{{- end }}

{{/* The part of a pod's spec about its node. */}}
{{- define "orders.scheduling" -}}
{{- with .root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Security context of pods, for the Pod Security Standard "restricted". */}}
{{- define "orders.podSecurity" -}}
securityContext:
  runAsNonRoot: true
  {{- range $field, $id := .Values.podSecurityContext }}
  {{- if not (kindIs "invalid" $id) }}
  {{ $field }}: {{ int64 $id }}
  {{- end }}
  {{- end }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{/* Security context of containers. It is stricter than the Pod Security Standard "restricted". */}}
{{- define "orders.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}

{{/* Probes of the services, all on the admin port. */}}
{{- define "orders.probes" -}}
startupProbe:
  httpGet: {path: /livez, port: admin}
  periodSeconds: 1
  timeoutSeconds: 2
  failureThreshold: 60
readinessProbe:
  httpGet: {path: /readyz, port: admin}
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: 2
livenessProbe:
  httpGet: {path: /livez, port: admin}
  periodSeconds: 10
  timeoutSeconds: 3
  failureThreshold: 3
{{- end }}

{{/* A pause before shutdown, so that the pod leaves the Service's endpoints before it stops accepting connections. With the services' own 20 s, it stays within the 30 s of the grace period. */}}
{{- define "orders.drain" -}}
lifecycle:
  preStop:
    sleep:
      seconds: 5
{{- end }}

{{/* Environment variables of all services. */}}
{{- define "orders.env" -}}
- name: LOG_FORMAT
  value: {{ .Values.log.format }}
- name: RUST_LOG
  value: {{ .Values.log.level | quote }}
- name: ADMIN_ADDR
  value: "[::]:9090"
{{- end }}

{{/* An environment variable from the Secret with the services' URLs. */}}
{{- define "orders.urlEnv" -}}
- name: {{ .key }}
  valueFrom:
    secretKeyRef:
      name: {{ include "orders.fullname" .root }}-urls
      key: {{ .key }}
{{- end }}

{{/* A service-account token for one audience, at /var/run/secrets/orders/<service>/token. */}}
{{- define "orders.tokenVolume" -}}
- name: {{ . }}-token
  projected:
    sources:
      - serviceAccountToken:
          audience: orders-{{ . }}
          expirationSeconds: 3600
          path: token
{{- end }}

{{- define "orders.tokenMount" -}}
- name: {{ . }}-token
  mountPath: /var/run/secrets/orders/{{ . }}
  readOnly: true
{{- end }}
