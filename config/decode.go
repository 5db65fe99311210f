package config

import (
	"bytes"
	"sync"
	"time"

	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxFile is the largest configuration that is read, bytes.
const maxFile = 16 << 20

// maxErrors is how many errors are reported at once.
const maxErrors = 50

// source tells where each value of a Config stands. Hardly anybody asks, so the text is
// read for it when somebody does.
type source struct {
	file string
	text []byte
	once sync.Once
	pos  map[string]Pos
}

// places are those of all values by their paths.
func (s *source) places() map[string]Pos {
	s.once.Do(func() {
		d, doc := parseTree(s.file, s.text)
		if doc != nil {
			d.root(Default(), top(doc))
		}
		s.pos = d.pos
	})
	return s.pos
}

// Load reads, decodes and validates the file at path.
func Load(path string) (*Config, error) {
	b, err := ReadFile(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, b)
}

// ReadFile reads the text of a configuration file, at most 16 MiB.
func ReadFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		hint := "check the name after -f or --config"
		if errors.Is(err, os.ErrPermission) {
			hint = "run as a user that may read it"
		}
		return nil, Errors{{File: path, Msg: "cannot read the configuration: " + reason(err), Hint: hint}}
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, Errors{{File: path, Msg: "cannot read the configuration: " + reason(err), Hint: "name a YAML file"}}
	}
	return b, nil
}

func reason(err error) string {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}

// Parse decodes and validates text; file names it in errors. The error is an
// Errors.
func Parse(file string, text []byte) (*Config, error) { return new(Editor).Parse(file, text) }

// decoder walks a YAML tree. It keeps going after an error, so that several are
// reported at once.
type decoder struct {
	file string
	pos  map[string]Pos // where values stand, by their paths
	// quick leaves out what only errors need: paths are empty, and pos stays so. At
	// 1,000 disks and targets that is half of the work.
	quick bool
	errs  Errors
}

func newDecoder(file string) *decoder { return &decoder{file: file, pos: map[string]Pos{}} }

func decode(file string, text []byte) (*Config, error) {
	d, doc := parseTree(file, text)
	if doc == nil {
		return nil, d.errs
	}
	return d.config(text, doc)
}

// parseTree parses the only document of text. The decoder has the errors, with which
// the document may be nil.
func parseTree(file string, text []byte) (*decoder, *yaml.Node) {
	d := newDecoder(file)
	if len(text) > maxFile {
		d.add(Pos{1, 1}, "", "the configuration is larger than 16MiB", "name the right file")
		return d, nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc yaml.Node
	if err := safeDecode(dec, &doc); err != nil {
		if errors.Is(err, io.EOF) {
			d.add(Pos{1, 1}, "", "the configuration is empty", "begin with \"version: 1\"")
		} else {
			d.syntax(err)
		}
		return d, nil
	}
	var more yaml.Node
	switch err := safeDecode(dec, &more); {
	case err == nil:
		d.add(nodePos(&more), "", "the file holds more than one YAML document", "leave out the line \"---\" and what follows it")
	case !errors.Is(err, io.EOF):
		d.syntax(err)
	}
	return d, &doc
}

// config is what a document, text's, says, unless there were errors before.
func (d *decoder) config(text []byte, doc *yaml.Node) (*Config, error) {
	if len(d.errs) == 0 {
		c, q := Default(), &decoder{file: d.file, quick: true}
		if q.root(c, top(doc)); len(q.errs) == 0 {
			c.src = &source{file: d.file, text: text}
			return c, nil
		}
		d.root(Default(), top(doc)) // for the errors
	}
	return nil, d.sorted()
}

// top is what a document holds.
func top(doc *yaml.Node) *yaml.Node {
	if doc.Kind == yaml.DocumentNode && len(doc.Content) == 1 {
		return doc.Content[0]
	}
	return doc
}

// safeDecode turns a panic of the YAML parser into an error: its input comes
// from users and through the API.
func safeDecode(dec *yaml.Decoder, n *yaml.Node) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("yaml: cannot be read: %v", r)
		}
	}()
	return dec.Decode(n)
}

var syntaxLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(?s:(.*))$`)

func (d *decoder) syntax(err error) {
	p, msg := Pos{1, 1}, err.Error()
	if m := syntaxLine.FindStringSubmatch(msg); m != nil {
		if n, err := strconv.Atoi(m[1]); err == nil && n > 0 {
			p.Line = n
		}
		msg = m[2]
	}
	hint := "look at this line and the one before it: indentation by spaces, a colon and a space after each key"
	d.add(p, "", "not YAML: "+strings.ReplaceAll(msg, "\n", " "), hint)
}

func (d *decoder) sorted() Errors {
	sortErrors(d.errs)
	if len(d.errs) > maxErrors {
		d.errs = d.errs[:maxErrors]
	}
	return d.errs
}

func sortErrors(es Errors) {
	sort.SliceStable(es, func(i, j int) bool {
		a, b := es[i].Pos, es[j].Pos
		if a.Line != b.Line {
			return a.Line < b.Line
		}
		return a.Col < b.Col
	})
}

func (d *decoder) add(p Pos, path, msg, hint string) {
	d.errs = append(d.errs, &Error{File: d.file, Pos: p, Path: path, Msg: msg, Hint: hint})
}

// setter decodes one value.
type setter func(n *yaml.Node, path string)

// fields are the keys of a mapping.
type fields map[string]setter

func nodePos(n *yaml.Node) Pos {
	p := Pos{n.Line, n.Column}
	if p.Line < 1 {
		p.Line = 1
	}
	if p.Col < 1 {
		p.Col = 1
	}
	return p
}

// plain refuses aliases and anchors: what a key means must stand where the key is.
func (d *decoder) plain(n *yaml.Node, path string) bool {
	if n.Kind == yaml.AliasNode {
		d.add(nodePos(n), path, label(path)+" is a YAML alias (*"+n.Value+"), which is not supported", "write the value out")
		return false
	}
	if n.Anchor != "" {
		d.add(nodePos(n), path, label(path)+" has a YAML anchor (&"+n.Anchor+"), which is not supported", "leave the anchor out")
		return false
	}
	return true
}

func label(path string) string {
	if path == "" {
		return "the configuration"
	}
	return path
}

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode:
		switch n.ShortTag() {
		case "!!null":
			return "nothing"
		case "!!bool":
			return "the truth value " + clip(n.Value)
		case "!!int", "!!float":
			return "the number " + clip(n.Value)
		case "!!timestamp":
			return "the date " + clip(n.Value)
		case "!!str":
			return "the text " + strconv.Quote(clip(n.Value))
		}
		return n.ShortTag() + " " + clip(n.Value)
	}
	return "something else"
}

func clip(s string) string {
	if len(s) > 60 {
		return s[:60] + "…"
	}
	return s
}

// mapping decodes n's keys by fs. It reports whether n is a mapping at all.
func (d *decoder) mapping(n *yaml.Node, path string, fs fields) bool {
	d.at(n, path)
	if !d.plain(n, path) {
		return false
	}
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		return true // a key with everything below it commented out
	}
	if n.Kind != yaml.MappingNode || n.ShortTag() != "!!map" {
		d.add(nodePos(n), path, fmt.Sprintf("%s must be a mapping (key: value), not %s", label(path), describe(n)), "its keys are "+strings.Join(fs.names(), ", "))
		return false
	}
	seen := earlier{n: n}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Kind != yaml.ScalarNode || k.ShortTag() != "!!str" {
			what := describe(k)
			hint := "keys are plain words: " + strings.Join(fs.names(), ", ")
			if k.ShortTag() == "!!merge" {
				what, hint = "the merge key <<", "write the values out"
			}
			d.add(nodePos(k), path, label(path)+" has "+what+" as a key", hint)
			continue
		}
		key := k.Value
		if first := seen.key(i); first > 0 {
			d.add(nodePos(k), d.join(path, key), fmt.Sprintf("key %q stands twice here, first in line %d", key, first), "keep one of them")
			continue
		}
		set, known := fs[key]
		switch {
		case !known:
			d.add(nodePos(k), d.join(path, key), fmt.Sprintf("unknown key %q in %s", clip(key), label(path)), fs.suggest(key))
		default:
			p := d.join(path, key)
			d.at(v, p)
			set(v, p)
		}
	}
	return true
}

// earlier finds keys that stand twice in a mapping.
type earlier struct {
	n     *yaml.Node
	lines map[string]int // where there are many
}

// key gives the line of an earlier key that is called as key i, 0 where there is none.
func (e *earlier) key(i int) int {
	key := e.n.Content[i].Value
	if len(e.n.Content) <= 40 {
		for j := 0; j < i; j += 2 {
			if k := e.n.Content[j]; k.Value == key && k.Kind == yaml.ScalarNode && k.ShortTag() == "!!str" {
				return nodePos(k).Line
			}
		}
		return 0
	}
	if e.lines == nil {
		e.lines = make(map[string]int, len(e.n.Content)/2)
	}
	line := e.lines[key]
	if line == 0 {
		e.lines[key] = nodePos(e.n.Content[i]).Line
	}
	return line
}

// at notes where a value stands.
func (d *decoder) at(n *yaml.Node, path string) {
	if !d.quick {
		d.pos[path] = nodePos(n)
	}
}

func (d *decoder) join(path, key string) string {
	switch {
	case d.quick:
		return ""
	case path == "":
		return key
	}
	return path + "." + key
}

func (fs fields) names() []string {
	var out []string
	for k := range fs {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// suggest names the known key that differs least from key, or all of them.
func (fs fields) suggest(key string) string {
	best, dist := "", 3
	for _, k := range fs.names() {
		if n := distance(strings.ToLower(key), strings.ToLower(k), dist); n < dist {
			best, dist = k, n
		}
	}
	if best != "" {
		return fmt.Sprintf("did you mean %q?", best)
	}
	return "known keys are " + strings.Join(fs.names(), ", ")
}

// distance is the number of single-letter edits between a and b, at most limit.
func distance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diag := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diag
			if a[i-1] != b[j-1] {
				cost++
			}
			diag = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return min(row[len(b)], limit)
}

// list decodes a sequence, giving each element to item.
func (d *decoder) list(n *yaml.Node, path string, item setter) {
	if !d.plain(n, path) {
		return
	}
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		return
	}
	if n.Kind != yaml.SequenceNode || n.ShortTag() != "!!seq" {
		d.add(nodePos(n), path, fmt.Sprintf("%s must be a list, not %s", label(path), describe(n)), "begin each element with \"- \"")
		return
	}
	for i, e := range n.Content {
		p := ""
		if !d.quick {
			p = at(path, i)
		}
		d.at(e, p)
		item(e, p)
	}
}

// scalar checks that n is a scalar of one of the tags.
func (d *decoder) scalar(n *yaml.Node, path, want, hint string, tags ...string) bool {
	if !d.plain(n, path) {
		return false
	}
	if n.Kind == yaml.ScalarNode && slices.Contains(tags, n.ShortTag()) {
		return true
	}
	d.add(nodePos(n), path, fmt.Sprintf("%s must be %s, not %s", path, want, describe(n)), hint)
	return false
}

func (d *decoder) str(to *string) setter {
	return func(n *yaml.Node, path string) {
		hint := "write text after the colon"
		if n.Kind == yaml.ScalarNode && n.ShortTag() != "!!null" && n.ShortTag() != "!!str" {
			hint = "put it in quotes: \"" + clip(n.Value) + "\""
		}
		if d.scalar(n, path, "text", hint, "!!str") {
			*to = n.Value
		}
	}
}

func (d *decoder) bool(to *bool) setter {
	return func(n *yaml.Node, path string) {
		if d.scalar(n, path, "true or false", "write true or false, without quotes", "!!bool") {
			*to = n.Value == "true" || n.Value == "True" || n.Value == "TRUE"
		}
	}
}

func (d *decoder) integer(to func(int64), lo, hi int64) setter {
	return func(n *yaml.Node, path string) {
		if v, ok := decimal(n.Value); ok && v >= lo && v <= hi && n.Kind == yaml.ScalarNode && n.Anchor == "" && n.ShortTag() == "!!int" {
			to(v)
			return
		}
		hint := fmt.Sprintf("write a number from %d to %d", lo, hi)
		if !d.scalar(n, path, "a whole number", hint, "!!int") {
			return
		}
		var v int64
		if err := n.Decode(&v); err != nil || v < lo || v > hi {
			d.add(nodePos(n), path, fmt.Sprintf("%s: %s is out of range", path, clip(n.Value)), hint)
			return
		}
		to(v)
	}
}

// decimal reads a whole number of at most 18 digits that no rule of YAML makes another
// one.
func decimal(s string) (v int64, ok bool) {
	if s == "" || len(s) > 18 || s[0] == '0' && len(s) > 1 {
		return 0, false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		v = v*10 + int64(s[i]-'0')
	}
	return v, true
}

func (d *decoder) int(to *int, lo, hi int64) setter {
	return d.integer(func(v int64) { *to = int(v) }, lo, hi)
}

// duration is a time with its unit, from lo to hi.
func (d *decoder) duration(to *time.Duration, lo, hi time.Duration) setter {
	return func(n *yaml.Node, path string) {
		hint := fmt.Sprintf("write a time with its unit, from %v to %v, such as 15s", lo, hi)
		if !d.scalar(n, path, "a time", hint, "!!str", "!!int", "!!float") {
			return
		}
		v, err := time.ParseDuration(n.Value)
		if err != nil || v < lo || v > hi {
			d.add(nodePos(n), path, fmt.Sprintf("%s: %s is not such a time", path, clip(n.Value)), hint)
			return
		}
		*to = v
	}
}

func (d *decoder) size(to *Size) setter {
	return func(n *yaml.Node, path string) {
		if !d.scalar(n, path, "a size", "write a number with a unit, such as 10GiB", "!!str", "!!int", "!!float") {
			return
		}
		z, err := ParseSize(n.Value)
		if err != nil {
			d.add(nodePos(n), path, path+": "+err.Error(), "")
			return
		}
		*to = z
	}
}
