package config

import (
	"bytes"
	"encoding/json"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// splice replaces pieces of a text; pieces do not overlap and are in order.
type splice struct{ cuts []cut }

type cut struct {
	from, to int
	text     string
}

func (s *splice) apply(text []byte) []byte {
	var b bytes.Buffer
	at := 0
	for _, c := range s.cuts {
		b.Write(text[at:c.from])
		b.WriteString(c.text)
		at = c.to
	}
	b.Write(text[at:])
	return b.Bytes()
}

func one(from, to int, text string) *splice { return &splice{[]cut{{from, to, text}}} }

// offset is where n begins, -1 where that is not known.
func (d *document) offset(n *yaml.Node) int {
	if n.Line < 1 || n.Line > len(d.lines) || n.Column < 1 {
		return -1
	}
	at := d.lines[n.Line-1]
	for range n.Column - 1 {
		if at >= len(d.text) || d.text[at] == '\n' {
			return -1
		}
		_, w := utf8.DecodeRune(d.text[at:])
		at += w
	}
	return at
}

func flow(n *yaml.Node) bool { return n.Style&yaml.FlowStyle != 0 }

// empty is a value of which nothing is written.
func empty(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.Value == "" && n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) == 0
}

// end is the offset behind the last byte of n, -1 where it cannot be told. The YAML
// library knows where nodes begin only.
func (d *document) end(n *yaml.Node) int {
	at := d.offset(n)
	if at < 0 || at >= len(d.text) {
		return -1
	}
	switch n.Kind {
	case yaml.ScalarNode:
		return d.scalarEnd(n, at)
	case yaml.MappingNode, yaml.SequenceNode:
		last := at + 1
		if k := len(n.Content); k > 0 {
			last = d.end(n.Content[k-1])
			if n.Kind == yaml.MappingNode && empty(n.Content[k-1]) {
				last = d.keyEnd(n.Content[k-2])
			}
		}
		if last < 0 || !flow(n) {
			return last
		}
		open, closing := byte('{'), byte('}')
		if n.Kind == yaml.SequenceNode {
			open, closing = '[', ']'
		}
		if d.text[at] != open {
			return -1
		}
		for last < len(d.text) {
			switch c := d.text[last]; {
			case c == closing:
				return last + 1
			case c == '#':
				last = d.lineEnd(last)
			case c == ',' || c == ' ' || c == '\t' || c == '\r' || c == '\n':
				last++
			default:
				return -1
			}
		}
	}
	return -1
}

func (d *document) scalarEnd(n *yaml.Node, at int) int {
	switch {
	case n.Style&yaml.DoubleQuotedStyle != 0:
		for i := at + 1; i < len(d.text); i++ {
			switch d.text[i] {
			case '\\':
				i++
			case '"':
				return i + 1
			}
		}
	case n.Style&yaml.SingleQuotedStyle != 0:
		for i := at + 1; i < len(d.text); i++ {
			if d.text[i] != '\'' {
				continue
			}
			if i+1 < len(d.text) && d.text[i+1] == '\'' {
				i++
				continue
			}
			return i + 1
		}
	case n.Style&(yaml.LiteralStyle|yaml.FoldedStyle|yaml.TaggedStyle) == 0 && n.Value != "":
		if bytes.HasPrefix(d.text[at:], []byte(n.Value)) {
			return at + len(n.Value)
		}
	}
	return -1
}

// keyEnd is the offset behind the colon of a key.
func (d *document) keyEnd(k *yaml.Node) int {
	i := d.end(k)
	for i >= 0 && i < len(d.text) {
		switch d.text[i] {
		case ':':
			return i + 1
		case ' ', '\t':
			i++
		default:
			return -1
		}
	}
	return -1
}

// pairEnd is where a key with its value ends.
func (d *document) pairEnd(k, v *yaml.Node) int {
	if empty(v) {
		return d.keyEnd(k)
	}
	return d.end(v)
}

// lineEnd is the offset of the line feed at or behind at, or the text's end.
func (d *document) lineEnd(at int) int {
	if i := bytes.IndexByte(d.text[at:], '\n'); i >= 0 {
		return at + i
	}
	return len(d.text)
}

func (d *document) lineStart(at int) int { return bytes.LastIndexByte(d.text[:at], '\n') + 1 }

// restBlank tells whether nothing but blanks, a comma where that is allowed, and a
// comment stands between at and the end of the line.
func (d *document) restBlank(at int, comma, comment bool) bool {
	s := strings.TrimSpace(string(d.text[at:d.lineEnd(at)]))
	if comma {
		s = strings.TrimSpace(strings.TrimPrefix(s, ","))
	}
	return s == "" || comment && s[0] == '#'
}

// eol is how the file ends its lines.
func (d *document) eol() string {
	if i := bytes.IndexByte(d.text, '\n'); i > 0 && d.text[i-1] == '\r' {
		return "\r\n"
	}
	return "\n"
}

// insertLines puts lines behind the line that holds at.
func (d *document) insertLines(at int, lines []string) *splice {
	if at < 0 {
		return nil
	}
	eol, e := d.eol(), d.lineEnd(at)
	text := strings.Join(lines, eol)
	if e == len(d.text) {
		return one(e, e, eol+text+eol)
	}
	return one(e+1, e+1, text+eol)
}

// cutLines removes the lines from the one that holds from to the one that holds
// the byte before to.
func (d *document) cutLines(from, to int) *splice {
	e := d.lineEnd(max(to-1, from))
	return one(d.lineStart(from), min(e+1, len(d.text)), "")
}

// plainWord tells whether s may stand without quotes, and is text then.
func plainWord(s string, inFlow bool) bool {
	if s == "" || len(s) > 200 {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		word := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '/'
		inner := i > 0 && (c == '.' || c == '-' || c == '+' || c == ':' && !inFlow && i < len(s)-1)
		if !word && !inner {
			return false
		}
	}
	var v any
	err := yaml.Unmarshal([]byte(s), &v)
	_, text := v.(string)
	return err == nil && text
}

// render writes n on one line. style is that of the value it replaces.
func render(n *yaml.Node, inFlow bool, style yaml.Style) string {
	switch n.Kind {
	case yaml.MappingNode:
		var parts []string
		for i := 0; i+1 < len(n.Content); i += 2 {
			parts = append(parts, render(n.Content[i], true, 0)+": "+render(n.Content[i+1], true, 0))
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case yaml.SequenceNode:
		var parts []string
		for _, e := range n.Content {
			parts = append(parts, render(e, true, 0))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	}
	if n.Tag != "!!str" {
		return n.Value
	}
	style |= n.Style
	switch {
	case style&yaml.SingleQuotedStyle != 0 && !strings.ContainsAny(n.Value, "'\n\r\t\\") && utf8.ValidString(n.Value):
		return "'" + n.Value + "'"
	case style&yaml.DoubleQuotedStyle == 0 && plainWord(n.Value, inFlow):
		return n.Value
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(n.Value) // JSON's text is YAML's
	return strings.TrimRight(b.String(), "\n")
}

// blockItem writes a list element over several lines, each with the indentation.
func blockItem(indent string, n *yaml.Node) []string {
	if n.Kind != yaml.MappingNode || len(n.Content) == 0 {
		return []string{indent + "- " + render(n, false, 0)}
	}
	var lines []string
	for i := 0; i+1 < len(n.Content); i += 2 {
		lead := indent + "  "
		if i == 0 {
			lead = indent + "- "
		}
		lines = append(lines, lead+render(n.Content[i], false, 0)+": "+render(n.Content[i+1], false, 0))
	}
	return lines
}

// blockStyle has a list element written over several lines by the encoder too.
func blockStyle(n *yaml.Node) *yaml.Node { n.Style &^= yaml.FlowStyle; return n }

// indentOf is the white space before the column of a block node.
func indentOf(n *yaml.Node) string { return strings.Repeat(" ", max(n.Column-1, 0)) }

// setKey replaces or adds a key of m.
func (d *document) setKey(m *yaml.Node, key string, v *yaml.Node) ([]byte, error) {
	k := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: key}
	i := keyIndex(m, key)
	if i < 0 {
		s := d.addPair(m, k, v)
		m.Content = append(m.Content, k, v)
		return d.finish(s)
	}
	old := m.Content[i+1]
	var s *splice
	switch from, to := d.offset(old), d.end(old); {
	case empty(old):
		if at := d.keyEnd(m.Content[i]); at >= 0 {
			s = one(at, at, " "+render(v, flow(m), 0))
		}
	case from >= 0 && to > from && (old.Kind == yaml.ScalarNode || flow(old)):
		if old.Kind == yaml.ScalarNode && old.Value == v.Value && v.Kind == yaml.ScalarNode && old.ShortTag() == v.Tag {
			return d.text, nil
		}
		s = one(from, to, render(v, flow(m), old.Style))
	case from >= 0 && to > from:
		// A block: its lines go, the value comes on the key's line.
		if at := d.keyEnd(m.Content[i]); at >= 0 && old.Line > m.Content[i].Line && d.restBlank(at, false, true) {
			c := d.cutLines(from, to)
			s = &splice{append([]cut{{at, at, " " + render(v, flow(m), 0)}}, c.cuts...)}
		}
	}
	v.HeadComment, v.LineComment, v.FootComment = old.HeadComment, old.LineComment, old.FootComment
	m.Content[i+1] = v
	return d.finish(s)
}

// addPair is the splice that adds a key to m.
func (d *document) addPair(m, k, v *yaml.Node) *splice {
	text := render(k, flow(m), 0) + ": " + render(v, flow(m), 0)
	n := len(m.Content)
	if flow(m) {
		if n == 0 {
			at := d.offset(m)
			if at < 0 {
				return nil
			}
			return one(at+1, at+1, text)
		}
		at := d.pairEnd(m.Content[n-2], m.Content[n-1])
		if at < 0 {
			return nil
		}
		return one(at, at, ", "+text)
	}
	if n == 0 {
		return nil
	}
	return d.insertLines(d.pairEnd(m.Content[n-2], m.Content[n-1]), []string{indentOf(m) + text})
}

// removeKey takes a key out of m.
func (d *document) removeKey(m *yaml.Node, key string) ([]byte, error) {
	i := keyIndex(m, key)
	if i < 0 {
		return d.text, nil
	}
	s := d.cutPair(m, i)
	m.Content = append(m.Content[:i:i], m.Content[i+2:]...)
	return d.finish(s)
}

func (d *document) cutPair(m *yaml.Node, i int) *splice {
	k, v := m.Content[i], m.Content[i+1]
	from, to := d.offset(k), d.pairEnd(k, v)
	if from < 0 || to < 0 {
		return nil
	}
	if !flow(m) {
		if strings.TrimSpace(string(d.text[d.lineStart(from):from])) != "" {
			return nil // behind the dash of a list element
		}
		return d.cutLines(from, to)
	}
	switch n := len(m.Content); {
	case i+2 < n:
		to = d.offset(m.Content[i+2])
	case i > 0:
		from = d.pairEnd(m.Content[i-2], m.Content[i-1])
	}
	if from < 0 || to < from {
		return nil
	}
	return one(from, to, "")
}

// appendItem adds an element to the list that is key of m.
func (d *document) appendItem(m *yaml.Node, key string, item *yaml.Node) ([]byte, error) {
	i := keyIndex(m, key)
	var seq *yaml.Node
	if i >= 0 {
		seq = m.Content[i+1]
	}
	inline := item.Kind == yaml.ScalarNode || key == "luns"
	if seq == nil || seq.Kind != yaml.SequenceNode || len(seq.Content) == 0 {
		s := d.firstItem(m, i, key, item, inline)
		n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Content: []*yaml.Node{item}}
		switch {
		case i >= 0 && seq.Kind != yaml.SequenceNode && !empty(seq) && seq.ShortTag() != "!!null":
			return nil, Errors{{File: d.file, Pos: nodePos(seq), Msg: key + " is not a list"}}
		case inline || flow(m):
			n.Style = yaml.FlowStyle
		default:
			blockStyle(item)
		}
		if i >= 0 {
			n.HeadComment, n.LineComment, n.FootComment = seq.HeadComment, seq.LineComment, seq.FootComment
			m.Content[i+1] = n
		} else {
			m.Content = append(m.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: key}, n)
		}
		return d.finish(s)
	}
	last := seq.Content[len(seq.Content)-1]
	s := d.nextItem(seq, last, item)
	if !flow(seq) && !flow(last) {
		blockStyle(item)
	}
	seq.Content = append(seq.Content, item)
	return d.finish(s)
}

// firstItem is the splice for the first element of a list that is not there yet
// (i < 0), has no value, or is [].
func (d *document) firstItem(m *yaml.Node, i int, key string, item *yaml.Node, inline bool) *splice {
	text := "[" + render(item, true, 0) + "]"
	if i < 0 {
		if inline || flow(m) {
			v := &yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{item}}
			return d.addPair(m, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: key}, v)
		}
		n := len(m.Content)
		if n == 0 {
			return nil
		}
		lines := append([]string{indentOf(m) + key + ":"}, blockItem(indentOf(m)+"  ", item)...)
		return d.insertLines(d.pairEnd(m.Content[n-2], m.Content[n-1]), lines)
	}
	k, v := m.Content[i], m.Content[i+1]
	at := d.keyEnd(k)
	if at < 0 {
		return nil
	}
	from, to := at, at
	if !empty(v) {
		from, to = d.offset(v), d.end(v)
		if from < 0 || to < from || v.Line != k.Line {
			return nil
		}
	}
	if inline || flow(m) || !d.restBlank(to, false, empty(v)) {
		if from == at {
			text = " " + text
		}
		return one(from, to, text)
	}
	lines := blockItem(indentOf(m)+"  ", item)
	if empty(v) {
		return d.insertLines(at, lines)
	}
	return one(at, to, d.eol()+strings.Join(lines, d.eol()))
}

// nextItem is the splice for an element behind last.
func (d *document) nextItem(seq, last, item *yaml.Node) *splice {
	from, to := d.offset(last), d.end(last)
	if from < 0 || to < 0 {
		return nil
	}
	if !flow(seq) {
		lines := blockItem(indentOf(seq), item)
		if flow(last) || last.Kind == yaml.ScalarNode {
			lines = []string{indentOf(seq) + "- " + render(item, false, last.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle))}
		}
		return d.insertLines(to, lines)
	}
	text := render(item, true, 0)
	if !d.ownLine(from, to) {
		return one(to, to, ", "+text)
	}
	indent := string(d.text[d.lineStart(from):from])
	comma := strings.HasPrefix(strings.TrimLeft(string(d.text[to:d.lineEnd(to)]), " \t"), ",")
	e := d.lineEnd(to)
	if e == len(d.text) {
		return nil
	}
	if comma {
		return one(e+1, e+1, indent+text+","+d.eol())
	}
	return &splice{[]cut{{to, to, ","}, {e + 1, e + 1, indent + text + d.eol()}}}
}

// ownLine tells whether an element of a flow list has its lines for itself.
func (d *document) ownLine(from, to int) bool {
	return strings.TrimSpace(string(d.text[d.lineStart(from):from])) == "" && d.restBlank(to, true, true)
}

// removeItem takes element i out of seq.
func (d *document) removeItem(seq *yaml.Node, i int) ([]byte, error) {
	s := d.cutItem(seq, i)
	seq.Content = append(seq.Content[:i:i], seq.Content[i+1:]...)
	return d.finish(s)
}

func (d *document) cutItem(seq *yaml.Node, i int) *splice {
	n := seq.Content[i]
	from, to := d.offset(n), d.end(n)
	if from < 0 || to < 0 {
		return nil
	}
	if flow(seq) {
		if d.ownLine(from, to) {
			return d.cutLines(from, to)
		}
		switch {
		case i+1 < len(seq.Content):
			to = d.offset(seq.Content[i+1])
		case i > 0:
			from = d.end(seq.Content[i-1])
		}
		if from < 0 || to < from {
			return nil
		}
		return one(from, to, "")
	}
	start := d.lineStart(from)
	if strings.TrimSpace(string(d.text[start:from])) != "-" {
		return nil
	}
	s := d.cutLines(from, to)
	// Comments that stand right above an element are about it, except those
	// above the first, which may be about the list.
	for i > 0 && s.cuts[0].from > 0 {
		prev := d.lineStart(s.cuts[0].from - 1)
		if !strings.HasPrefix(strings.TrimSpace(string(d.text[prev:s.cuts[0].from])), "#") {
			break
		}
		s.cuts[0].from = prev
	}
	return s
}
