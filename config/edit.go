package config

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// Op is one change of a configuration's text. What it does not name stays as it is
// written, comments, order and layout included.
type Op struct {
	// Action is Add, Modify or Remove.
	Action Action
	// Kind is disk, target, lun or portal.
	Kind string
	// Name is the object's name, or the target's for a lun; a portal's address.
	Name string
	// LUN is a lun's number.
	LUN uint16
	// Values are keys of the file with what JSON makes of their values (bool,
	// string, float64, json.Number, []any, map[string]any); nil takes a key out.
	// Modify merges mappings (RFC 7396). A portal has none.
	Values map[string]any
}

// Object names what o changes, for messages: "disk root1", "lun vm1/0".
func (o *Op) Object() string {
	if o.Kind == "lun" {
		return "lun " + lunName(o.Name, o.LUN)
	}
	return o.Kind + " " + o.Name
}

// Edit gives text with the changes of ops in it. The result decodes to exactly what
// the ops mean but is not validated as a whole: Parse does that. Objects to modify
// or remove must be there, others not.
func Edit(file string, text []byte, ops ...Op) ([]byte, error) {
	if len(ops) == 0 {
		return text, nil
	}
	d, err := edit(nil, file, text, ops)
	if err != nil {
		return nil, err
	}
	return d.text, nil
}

// EditConfig is Edit with what the result says, validated as Parse does it: for a file
// of 1,000 targets that saves one parse of several.
func EditConfig(file string, text []byte, ops ...Op) ([]byte, *Config, error) {
	return new(Editor).EditConfig(file, text, ops...)
}

// Editor makes changes one after another, and keeps what it knows of the text that the
// last one left: at 1,000 targets that saves a parse of 14 ms for 10 MB of memory. The zero
// Editor is ready; one goroutine at a time may use it.
type Editor struct {
	last *document // nothing has been changed in its tree
}

// Parse is the function of this name, of a text that may be changed next.
func (e *Editor) Parse(file string, text []byte) (*Config, error) {
	e.last = nil
	x, doc := parseTree(file, text)
	if doc == nil {
		return nil, x.errs
	}
	c, err := x.config(text, doc)
	if err != nil {
		return nil, err
	}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	e.last = newDocument(file, text, doc)
	return c, nil
}

// EditConfig is the function of this name.
func (e *Editor) EditConfig(file string, text []byte, ops ...Op) ([]byte, *Config, error) {
	d := e.last
	e.last = nil
	switch {
	case d == nil:
	case bytes.Equal(d.text, text):
		d.file = file // of the same text, maybe another one
	default:
		d = nil
	}
	d, err := edit(d, file, text, ops)
	if err != nil {
		return nil, nil, err
	}
	c := d.cfg
	if c == nil {
		if c, err = decode(file, d.text); err != nil {
			return nil, nil, err
		}
	}
	if err := c.Validate(); err != nil {
		return nil, nil, err
	}
	e.last = d
	return d.text, c, nil
}

// edit makes the changes one after another, each on the document that the one before
// has left. d is text's document, nil where it is not at hand; it is used up.
func edit(d *document, file string, text []byte, ops []Op) (_ *document, err error) {
	if d == nil {
		d, err = parseDocument(file, text)
	}
	if err == nil && together(ops) {
		if n := d.editTogether(ops); n != nil {
			d, ops = n, nil
		} else {
			d, err = parseDocument(file, text) // its tree was changed
		}
	}
	for i := range ops {
		if err != nil {
			return nil, err
		}
		d, err = editOne(d, &ops[i])
	}
	if err == nil && d.dec != nil {
		d.cfg, err = d.dec.config(d.text, d.doc)
	}
	return d, err
}

// together tells whether ops may be tried as one change of the text: several, all of
// which add disks or targets. What others cut out may be what the next one stands by.
func together(ops []Op) bool {
	for i := range ops {
		if ops[i].Action != Add || ops[i].Kind != "disk" && ops[i].Kind != "target" {
			return false
		}
	}
	return len(ops) > 1
}

// editTogether makes all changes by one splice, with one parse as the proof: at 1,000
// targets a parse is 14 ms. It gives nil where that does not do, be it that an op is
// wrong or that two of them touch the same place; d is of no use then.
func (d *document) editTogether(ops []Op) *document {
	all := &splice{}
	d.gather = all
	for i := range ops {
		if _, err := editOne(d, &ops[i]); err != nil {
			return nil
		}
	}
	d.gather = nil
	slices.SortStableFunc(all.cuts, func(a, b cut) int { return cmp.Compare(a.from, b.from) })
	for i := 1; i < len(all.cuts); i++ {
		if all.cuts[i].from <= all.cuts[i-1].to {
			return nil
		}
	}
	return d.proved(all.apply(d.text))
}

func editOne(d *document, o *Op) (*document, error) {
	file := d.file
	fail := func(format string, args ...any) error {
		return Errors{{File: file, Path: o.Object(), Msg: o.Object() + ": " + fmt.Sprintf(format, args...)}}
	}
	list, ok := map[string][]string{"disk": {"disks"}, "target": {"targets"}, "lun": {"luns"}, "portal": {"iscsi", "portals"}}[o.Kind]
	if !ok {
		return nil, fail("objects of this kind cannot be changed")
	}
	// holder is the mapping that has the list.
	holder := func(d *document) (*yaml.Node, bool) {
		n := d.root
		if o.Kind == "lun" {
			seq := child(n, "targets")
			i := find(seq, "name", o.Name)
			if i < 0 {
				return nil, false
			}
			n = seq.Content[i]
		}
		return n, true
	}
	index := func(d *document) (seq *yaml.Node, i int) {
		n, ok := holder(d)
		if !ok {
			return nil, -1
		}
		for _, k := range list {
			n = child(n, k)
		}
		switch o.Kind {
		case "lun":
			return n, find(n, "lun", strconv.Itoa(int(o.LUN)))
		case "portal":
			return n, find(n, "", o.Name)
		}
		return n, find(n, "name", o.Name)
	}

	seq, i := index(d)
	switch o.Action {
	case Add:
		if i >= 0 {
			return nil, fail("is there already")
		}
		h, ok := holder(d)
		if !ok {
			return nil, fail("there is no target %s", o.Name)
		}
		item, err := o.item()
		if err != nil {
			return nil, fail("%v", err)
		}
		if o.Kind == "portal" {
			if k := child(h, "iscsi"); !isMapping(k) {
				return d.then(d.setKey(h, "iscsi", mappingNode([]string{"portals"}, []*yaml.Node{{Kind: yaml.SequenceNode, Tag: "!!seq", Style: yaml.FlowStyle, Content: []*yaml.Node{item}}})))
			} else {
				h = k
			}
		}
		return d.then(d.appendItem(h, list[len(list)-1], item))
	case Remove:
		if i < 0 {
			return nil, fail("is not there")
		}
		return d.then(d.removeItem(seq, i))
	case Modify:
		if i < 0 {
			return nil, fail("is not there")
		}
		// One key at a time, each on the text that the last one left.
		sets, err := flatten(nil, o.Values, seq.Content[i])
		if err != nil {
			return nil, fail("%v", err)
		}
		for _, s := range sets {
			seq, i = index(d)
			if i < 0 {
				return nil, fail("lost its name")
			}
			n := seq.Content[i]
			for _, k := range s.path[:len(s.path)-1] {
				n = child(n, k)
			}
			if d, err = d.then(d.set(n, s.path[len(s.path)-1], s.value)); err != nil {
				return nil, err
			}
		}
		return d, nil
	}
	return nil, fail("unknown action %q", o.Action)
}

// item is the list element that o adds.
func (o *Op) item() (*yaml.Node, error) {
	v := present(o.Values)
	switch o.Kind {
	case "portal":
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Style: yaml.DoubleQuotedStyle, Value: o.Name}, nil
	case "lun":
		v["lun"] = json.Number(strconv.Itoa(int(o.LUN)))
	default:
		v["name"] = o.Name
	}
	return toNode(v)
}

// pathValue is one key to set, or to remove where value is nil.
type pathValue struct {
	path  []string
	value *yaml.Node
}

// flatten makes single keys of a merge patch onto n.
func flatten(path []string, values map[string]any, n *yaml.Node) (out []pathValue, err error) {
	for _, k := range orderedKeys(values) {
		p := append(slices.Clone(path), k)
		old := child(n, k)
		switch v := values[k].(type) {
		case nil:
			if old != nil {
				out = append(out, pathValue{p, nil})
			}
			continue
		case map[string]any:
			if isMapping(old) && len(old.Content) > 0 {
				sub, err := flatten(p, v, old)
				if err != nil {
					return nil, err
				}
				out = append(out, sub...)
				continue
			}
		}
		v, err := toNode(values[k])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", k, err)
		}
		out = append(out, pathValue{p, v})
	}
	return out, nil
}

// present is m without keys whose value is null: they are not there.
func present(m map[string]any) map[string]any {
	out := map[string]any{}
	for k, v := range m {
		if v != nil {
			out[k] = v
		}
	}
	return out
}

// keyOrder is how keys of a new object are written; others follow.
var keyOrder = []string{
	"name", "lun", "disk", "store", "size", "create", "blockSize", "physicalBlockSize", "cache", "thin", "readOnly",
	"removable", "shared", "explicitALUA", "migratable", "onError", "serial", "naa", "reservations", "claim", "keyFile", "atomicLog", "sanitizeSpeed", "luns", "address", "iqn", "alias", "chap", "initiators", "iscsi", "socket", "owner", "group", "mode", "initiator", "aix", "domain", "device", "type", "toolstack", "vhost", "vio", "xen", "alua",
}

func orderedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	rank := func(k string) int {
		if i := slices.Index(keyOrder, k); i >= 0 {
			return i
		}
		return len(keyOrder)
	}
	slices.SortFunc(keys, func(a, b string) int { return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a, b)) })
	return keys
}

// toNode makes YAML of a JSON value.
func toNode(v any) (*yaml.Node, error) {
	scalar := func(tag, value string) (*yaml.Node, error) {
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: value}, nil
	}
	switch v := v.(type) {
	case bool:
		return scalar("!!bool", strconv.FormatBool(v))
	case string:
		return scalar("!!str", v)
	case int:
		return scalar("!!int", strconv.Itoa(v))
	case float64:
		if v != float64(int64(v)) {
			return nil, fmt.Errorf("%v is not a whole number", v)
		}
		return scalar("!!int", strconv.FormatInt(int64(v), 10))
	case json.Number:
		if _, err := strconv.ParseInt(v.String(), 10, 64); err != nil {
			return nil, fmt.Errorf("%s is not a whole number", clip(v.String()))
		}
		return scalar("!!int", v.String())
	case []any:
		n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Style: yaml.FlowStyle}
		for _, x := range v {
			e, err := toNode(x)
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, e)
		}
		return n, nil
	case map[string]any:
		v = present(v)
		keys := orderedKeys(v)
		var vals []*yaml.Node
		for _, k := range keys {
			e, err := toNode(v[k])
			if err != nil {
				return nil, fmt.Errorf("%s: %w", k, err)
			}
			vals = append(vals, e)
		}
		return mappingNode(keys, vals), nil
	}
	return nil, fmt.Errorf("a value of this kind is not possible here")
}

func mappingNode(keys []string, vals []*yaml.Node) *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Style: yaml.FlowStyle}
	for i, k := range keys {
		n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: k}, vals[i])
	}
	return n
}

func isMapping(n *yaml.Node) bool { return n != nil && n.Kind == yaml.MappingNode }

// child is the value of a key of a mapping, nil where there is none.
func child(n *yaml.Node, key string) *yaml.Node {
	if i := keyIndex(n, key); i >= 0 {
		return n.Content[i+1]
	}
	return nil
}

// keyIndex is the place of a key in n.Content, -1 where there is none.
func keyIndex(n *yaml.Node, key string) int {
	if isMapping(n) {
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Kind == yaml.ScalarNode && n.Content[i].Value == key {
				return i
			}
		}
	}
	return -1
}

// find is the index of the element of seq that has value as its key, or that is
// value where key is empty; -1 if there is none.
func find(seq *yaml.Node, key, value string) int {
	if seq == nil || seq.Kind != yaml.SequenceNode {
		return -1
	}
	for i, e := range seq.Content {
		v := e
		if key != "" {
			v = child(e, key)
		}
		if v == nil || v.Kind != yaml.ScalarNode {
			continue
		}
		if v.Value == value {
			return i
		}
		if key == "lun" {
			// 0x10, 1_000 and the like.
			var n int
			if v.Decode(&n) == nil && strconv.Itoa(n) == value {
				return i
			}
		}
	}
	return -1
}

// document is a parsed text, for one change of it.
type document struct {
	file  string
	text  []byte
	doc   *yaml.Node // the document
	root  *yaml.Node // its mapping
	lines []int      // offset of each line
	dec   *decoder   // parsed it and has not decoded it yet; nil: it is known to decode
	cfg   *Config    // what it says, nil: not known

	// next is what a change has left, where finish had to parse that anyway.
	next *document
	// gather takes splices that are to be made together; nil: each by itself.
	gather *splice
}

// errApart is a change that cannot be made together with others.
var errApart = errors.New("no splice for this change")

// then is the document after a change that gave text.
func (d *document) then(text []byte, err error) (*document, error) {
	switch {
	case err != nil:
		return nil, err
	case d.gather != nil:
		return d, nil
	case d.next != nil:
		return d.next, nil
	}
	return parseDocument(d.file, text)
}

func parseDocument(file string, text []byte) (*document, error) {
	// What follows the document is what the change is refused for, not this.
	_, doc := parseTree(file, text)
	if doc == nil {
		_, err := decode(file, text)
		if err == nil {
			err = Errors{{File: file, Pos: Pos{1, 1}, Msg: "the configuration cannot be read"}}
		}
		return nil, err
	}
	if d := newDocument(file, text, doc); d != nil {
		return d, nil
	}
	return nil, Errors{{File: file, Pos: Pos{1, 1}, Msg: "the configuration is not a mapping", Hint: "begin with \"version: 1\""}}
}

// newDocument is text's document, nil where that is no mapping.
func newDocument(file string, text []byte, doc *yaml.Node) *document {
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 || !isMapping(doc.Content[0]) {
		return nil
	}
	d := &document{file: file, text: text, doc: doc, root: doc.Content[0], lines: []int{0}}
	for i, c := range text {
		if c == '\n' {
			d.lines = append(d.lines, i+1)
		}
	}
	return d
}

// sameTree tells whether two trees say the same by having the same nodes; they may say
// the same in other ways, too.
func sameTree(a, b *yaml.Node) bool {
	if a.Kind != b.Kind || a.Kind == yaml.AliasNode || a.Anchor != "" || b.Anchor != "" || len(a.Content) != len(b.Content) ||
		a.Value != b.Value || (a.Tag != b.Tag || a.Tag == "") && a.ShortTag() != b.ShortTag() {
		return false
	}
	for i := range a.Content {
		if !sameTree(a.Content[i], b.Content[i]) {
			return false
		}
	}
	return true
}

// proved is text's document where it parses to the very nodes of d's changed tree, else
// nil.
func (d *document) proved(text []byte) *document {
	x, doc := parseTree(d.file, text)
	if doc == nil || len(x.errs) > 0 || !sameTree(doc, d.doc) {
		return nil
	}
	n := newDocument(d.file, text, doc)
	if n != nil {
		n.dec = x // edit asks it what the last text says
	}
	return n
}

// finish checks that the text with the splice in it means what the changed tree
// means. Where it does not (a layout that the splices do not know) the tree is
// written anew: comments and order survive that too, blank lines do not.
func (d *document) finish(s *splice) ([]byte, error) {
	if d.gather != nil {
		if s == nil {
			return nil, errApart
		}
		d.gather.cuts = append(d.gather.cuts, s.cuts...)
		return d.text, nil
	}
	if s != nil {
		// The rule; the parse serves the next change.
		text := s.apply(d.text)
		if d.next = d.proved(text); d.next != nil {
			return text, nil
		}
	}
	want := newDecoder(d.file)
	c := Default()
	want.root(c, d.root)
	if s != nil {
		text := s.apply(d.text)
		got, err := decode(d.file, text)
		if len(want.errs) > 0 && err != nil {
			return nil, err
		}
		if err == nil && len(want.errs) == 0 {
			got.src = nil
			if reflect.DeepEqual(got, c) {
				return text, nil
			}
		}
	}
	if len(want.errs) > 0 {
		return nil, want.sorted()
	}
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(d.doc); err != nil {
		return nil, Errors{{File: d.file, Msg: "the configuration cannot be written: " + err.Error()}}
	}
	_ = e.Close()
	got, err := decode(d.file, b.Bytes())
	if err != nil {
		return nil, err
	}
	if got.src = nil; !reflect.DeepEqual(got, c) {
		return nil, Errors{{File: d.file, Msg: "this file is written in a way that cannot be changed piece by piece", Hint: "change it in an editor, then: vtgt apply -f " + d.file}}
	}
	return b.Bytes(), nil
}

// set gives key of m a value; nil takes the key out.
func (d *document) set(m *yaml.Node, key string, v *yaml.Node) ([]byte, error) {
	if v == nil {
		return d.removeKey(m, key)
	}
	return d.setKey(m, key, v)
}
