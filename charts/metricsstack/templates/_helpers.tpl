{{/* Labels of every object of the chart. */}}
{{- define "metricsstack.labels" -}}
{{ include "metricsstack.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: metricsstack
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* Labels that select the operator's pods. */}}
{{- define "metricsstack.selector" -}}
app.kubernetes.io/name: metricsstack-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* What every pod of the chart says about itself, so that the "restricted" Pod Security level admits it. As whom it runs
is the image's word (65532), or that of who admits it: OpenShift gives each namespace users of its own. */}}
{{- define "metricsstack.podSecurityContext" -}}
runAsNonRoot: true
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "metricsstack.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}
