// Package config is vtgt's declarative state: the types behind the YAML file, its
// strict decoding and validation, the difference of two states, and edits of the text
// that leave comments and layout as they are. YAML 1.2 as
// go.yaml.in/yaml/v3 reads it; anchors, aliases and merge keys are refused.
//
// Nothing here looks at the host: what a text means depends on the text alone.
// Whether files exist and ports are free is the daemon's question.
package config
