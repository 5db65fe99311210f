package config

import (
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Most configurations are written in little of what YAML offers, and that little can be
// read ten times as fast as the YAML library reads it: at 1,000 disks and targets 1.3 ms
// instead of 14. parsePlain knows block mappings and lists, flow collections that stay on
// one line, words, numbers, and quoted text without escapes, all of ASCII, and comments. What
// it takes for a document has the nodes that the library makes of it, places and styles
// included, without the comments (FuzzPlain compares the two). All else, errors included,
// is the library's: tabs, CR, anchors, tags, text over several lines, "---".

// maxPlainDepth bounds how deep parsePlain follows nested collections.
const maxPlainDepth = 32

// maxPlainKey is the longest key; the library looks for a key's colon in 1024 bytes.
const maxPlainKey = 100

// parsePlain gives the document of text, nil where it does not know how it is written.
func parsePlain(text []byte) *yaml.Node {
	p := &plainParser{s: string(text)}
	if !p.nextLine() || p.at >= len(p.s) {
		return nil
	}
	doc := p.node(yaml.DocumentNode, p.col())
	root := p.blockMapping(p.indent, 0)
	if root == nil || p.at < len(p.s) {
		return nil
	}
	doc.Content = []*yaml.Node{root}
	return doc
}

type plainParser struct {
	s string
	// at is the place in s, start where its line begins, line its number from 1.
	at, start, line int
	// indent is the column of the line's first byte that is no blank, from 0; -1: the
	// text has ended.
	indent int

	nodes []yaml.Node  // to be given out
	refs  []*yaml.Node // the same
	stack []*yaml.Node // of the collections that are open
}

// col is the column of at, from 0.
func (p *plainParser) col() int { return p.at - p.start }

// peek is the byte at p.at, a line feed at the text's end.
func (p *plainParser) peek() byte {
	if p.at < len(p.s) {
		return p.s[p.at]
	}
	return '\n'
}

// node makes a node that begins at a column, from 0, of the line.
func (p *plainParser) node(k yaml.Kind, col int) *yaml.Node {
	if len(p.nodes) == 0 {
		p.nodes = make([]yaml.Node, 256)
	}
	n := &p.nodes[0]
	p.nodes = p.nodes[1:]
	n.Kind, n.Line, n.Column = k, p.line, col+1
	switch k {
	case yaml.MappingNode:
		n.Tag = "!!map"
	case yaml.SequenceNode:
		n.Tag = "!!seq"
	}
	return n
}

// content gives n what is on the stack from base on. One more element moves it: nothing
// is written over.
func (p *plainParser) content(n *yaml.Node, base int) *yaml.Node {
	k := len(p.stack) - base
	if k > 0 {
		if len(p.refs) < k {
			p.refs = make([]*yaml.Node, max(k, 1024))
		}
		copy(p.refs, p.stack[base:])
		n.Content = p.refs[:k:k]
		p.refs = p.refs[k:]
	}
	p.stack = p.stack[:base]
	return n
}

func (p *plainParser) blanks() {
	for p.at < len(p.s) && p.s[p.at] == ' ' {
		p.at++
	}
}

// comment skips a comment up to the line's end. It gives false where that has what the
// library might not take for a part of a comment.
func (p *plainParser) comment() bool {
	for p.at < len(p.s) && p.s[p.at] != '\n' {
		c := p.s[p.at]
		if c >= ' ' && c < 0x7f {
			p.at++
			continue
		}
		r, w := utf8.DecodeRuneInString(p.s[p.at:])
		if r < 0xa0 || r == utf8.RuneError || r == 0x2028 || r == 0x2029 || r == 0xfeff || r == 0xfffe || r == 0xffff {
			return false
		}
		p.at += w
	}
	return true
}

// endLine goes over blanks and a comment, then to the next line that says something.
func (p *plainParser) endLine() bool {
	from := p.at
	p.blanks()
	if p.peek() == '#' && p.at > from && !p.comment() || p.peek() != '\n' {
		return false
	}
	p.at++
	return p.nextLine()
}

// nextLine goes to the first byte of the next line that is more than blanks and a
// comment; at is the beginning of a line, or behind the text's end.
func (p *plainParser) nextLine() bool {
	for {
		p.start = p.at
		p.line++
		if p.at >= len(p.s) {
			p.at, p.indent = len(p.s), -1
			return true
		}
		p.blanks()
		switch p.peek() {
		case '\n':
		case '#':
			if !p.comment() {
				return false
			}
		default:
			p.indent = p.col()
			return true
		}
		p.at++
	}
}

// key is a mapping's key at p.at, with its colon, nil where there is none; p.at is then
// what it was.
func (p *plainParser) key() *yaml.Node {
	i := p.at
	for i < len(p.s) && (isLetter(p.s[i]) || i > p.at && (isDigit(p.s[i]) || p.s[i] == '-')) {
		i++
	}
	if i == p.at || i-p.at > maxPlainKey || i >= len(p.s) || p.s[i] != ':' || i+1 < len(p.s) && p.s[i+1] != ' ' && p.s[i+1] != '\n' {
		return nil
	}
	n := p.node(yaml.ScalarNode, p.col())
	n.Value = p.s[p.at:i]
	n.Tag = plainTag(n.Value)
	p.at = i + 1
	return n
}

func isLetter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' }
func isDigit(c byte) bool  { return c >= '0' && c <= '9' }

// blockMapping is the mapping whose first key is at p.at, in column indent. Afterwards
// p.at is in the first line that does not belong to it.
func (p *plainParser) blockMapping(indent, depth int) *yaml.Node {
	n, base := p.node(yaml.MappingNode, indent), len(p.stack)
	for {
		k := p.key()
		if k == nil || depth > maxPlainDepth {
			return nil
		}
		var v *yaml.Node
		from := p.at
		p.blanks()
		if c := p.peek(); c == '\n' || c == '#' {
			// What follows is the value, if it belongs here.
			none := p.node(yaml.ScalarNode, from-p.start)
			none.Tag = "!!null"
			p.at = from
			if !p.endLine() {
				return nil
			}
			switch list := p.entry(); {
			case p.indent > indent && list, p.indent == indent && list:
				v = p.blockSequence(p.indent, depth+1)
			case p.indent > indent:
				v = p.blockMapping(p.indent, depth+1)
			default:
				v = none
			}
		} else if v = p.value(false, depth+1); v != nil && (!p.endLine() || p.indent > indent) {
			return nil // text that goes on in the next line, or an error
		}
		if v == nil || p.indent > indent {
			return nil
		}
		p.stack = append(p.stack, k, v)
		if p.indent < indent {
			return p.content(n, base)
		}
	}
}

// entry tells whether the line begins with the dash of a list's element.
func (p *plainParser) entry() bool {
	return p.at+1 < len(p.s) && p.s[p.at] == '-' && p.s[p.at+1] == ' '
}

// blockSequence is the list whose first dash is at p.at.
func (p *plainParser) blockSequence(indent, depth int) *yaml.Node {
	n, base := p.node(yaml.SequenceNode, indent), len(p.stack)
	for {
		if depth > maxPlainDepth {
			return nil
		}
		p.at++
		p.blanks()
		var v *yaml.Node
		at, col := p.at, p.col()
		if p.key() != nil {
			p.at = at
			v = p.blockMapping(col, depth+1)
		} else if v = p.value(false, depth+1); v != nil && !p.endLine() {
			return nil
		}
		if v == nil || p.indent > indent {
			return nil
		}
		p.stack = append(p.stack, v)
		if p.indent < indent || !p.entry() {
			return p.content(n, base)
		}
	}
}

// value is a flow collection or a scalar on the rest of the line.
func (p *plainParser) value(inFlow bool, depth int) *yaml.Node {
	if depth > maxPlainDepth {
		return nil
	}
	switch c := p.peek(); c {
	case '{':
		return p.flowMapping(depth)
	case '[':
		return p.flowSequence(depth)
	case '"', '\'':
		return p.quoted(c)
	}
	return p.word(inFlow)
}

// quoted is text in quotes q of which nothing is escaped.
func (p *plainParser) quoted(q byte) *yaml.Node {
	n := p.node(yaml.ScalarNode, p.col())
	for i := p.at + 1; i < len(p.s); i++ {
		switch c := p.s[i]; {
		case c == q && i+1 < len(p.s) && p.s[i+1] == q:
			return nil
		case c == q:
			n.Tag, n.Value, n.Style = "!!str", p.s[p.at+1:i], yaml.SingleQuotedStyle
			if q == '"' {
				n.Style = yaml.DoubleQuotedStyle
			}
			p.at = i + 1
			return n
		case c < ' ' || c >= 0x7f || c == '\\':
			return nil
		}
	}
	return nil
}

// word is a scalar without quotes.
func (p *plainParser) word(inFlow bool) *yaml.Node {
	n, i, end := p.node(yaml.ScalarNode, p.col()), p.at, p.at
	for ; i < len(p.s); i++ {
		c := p.s[i]
		switch {
		case isLetter(c) || isDigit(c) || c == '/' || c == '.':
		case i == p.at:
			return nil // an indicator, or what is rare
		case c == '-' || c == '+' || c == '@' || c == '%' || c == '=' || c == '(' || c == ')':
		case c == ':' && i+1 < len(p.s) && (isLetter(p.s[i+1]) || isDigit(p.s[i+1]) || p.s[i+1] == '/' || p.s[i+1] == '.'):
		case c == ' ':
			if i+1 < len(p.s) && p.s[i+1] == '#' {
				goto done
			}
			continue
		case c == '\n' || inFlow && (c == ',' || c == ']' || c == '}'):
			goto done
		default:
			return nil
		}
		end = i + 1
	}
done:
	if end == p.at {
		return nil
	}
	n.Value = p.s[p.at:end]
	n.Tag = plainTag(n.Value)
	p.at = end
	return n
}

// flowMapping is the mapping whose brace is at p.at.
func (p *plainParser) flowMapping(depth int) *yaml.Node {
	n, base := p.node(yaml.MappingNode, p.col()), len(p.stack)
	n.Style = yaml.FlowStyle
	p.at++
	if p.blanks(); p.peek() == '}' {
		p.at++
		return n
	}
	for {
		k := p.key()
		if k == nil || p.peek() != ' ' {
			return nil
		}
		p.blanks()
		v := p.value(true, depth+1)
		if v == nil {
			return nil
		}
		p.stack = append(p.stack, k, v)
		switch p.flowEnd('}') {
		case endsHere:
			return p.content(n, base)
		case unknown:
			return nil
		}
	}
}

// flowSequence is the list whose bracket is at p.at.
func (p *plainParser) flowSequence(depth int) *yaml.Node {
	n, base := p.node(yaml.SequenceNode, p.col()), len(p.stack)
	n.Style = yaml.FlowStyle
	p.at++
	if p.blanks(); p.peek() == ']' {
		p.at++
		return n
	}
	for {
		v := p.value(true, depth+1)
		if v == nil {
			return nil
		}
		p.stack = append(p.stack, v)
		switch p.flowEnd(']') {
		case endsHere:
			return p.content(n, base)
		case unknown:
			return nil
		}
	}
}

// How a flow collection goes on.
const (
	unknown = iota
	goesOn
	endsHere
)

// flowEnd goes over what stands behind an element.
func (p *plainParser) flowEnd(closing byte) int {
	p.blanks()
	switch p.peek() {
	case closing:
		p.at++
		return endsHere
	case ',':
		p.at++
		p.blanks()
		return goesOn
	}
	return unknown
}

// plainTag is the tag of a scalar without quotes.
func plainTag(s string) string {
	switch c := s[0]; {
	case isDigit(c):
		if _, ok := decimal(s); ok {
			return "!!int" // others may be octal, floats, dates, or text
		}
		if strings.ContainsAny(s, "iKMG") {
			return "!!str" // 10GiB: no number and no date has these
		}
	case c == '/' || c == '_':
		return "!!str"
	case isLetter(c):
		switch s {
		case "true", "True", "TRUE", "false", "False", "FALSE":
			return "!!bool"
		case "null", "Null", "NULL":
			return "!!null"
		}
		return "!!str"
	}
	n := yaml.Node{Kind: yaml.ScalarNode, Value: s}
	return n.ShortTag() // the library's rules
}
