package xenstoretest

import (
	"io"
	"maps"
	"net"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"

	"github.com/vtgt/vtgt/xen/xenstore"
	"github.com/vtgt/vtgt/xen/xenstore/wire"
)

// Server is a xenstored. Any goroutine.
type Server struct {
	mu      sync.Mutex
	nodes   map[string]node
	gen     uint64 // of the last change
	clients map[*client]struct{}
	txs     uint32
	domains map[uint32]bool
	trace   []string
	again   int
	chunk   int // bytes of names in an answer
	closed  bool
	wg      sync.WaitGroup
}

type node struct {
	value string
	perms []wire.Perm
	gen   uint64 // of its last change
}

type client struct {
	s       *Server
	domid   uint32
	nc      net.Conn
	out     chan []byte
	watches []xenstore.Event
	txs     map[uint32]*tx
}

// tx is a transaction: a copy of the nodes, and what was looked at.
type tx struct {
	base  map[string]node // when it began
	nodes map[string]node
	seen  map[string]uint64 // generation, 0: was not there
	wrote []string
}

// New makes one that knows domain 0.
func New() *Server {
	s := &Server{nodes: map[string]node{}, clients: map[*client]struct{}{}, domains: map[uint32]bool{0: true}, chunk: 1024}
	s.nodes["/"] = node{perms: []wire.Perm{{Access: wire.None}}}
	return s
}

// Dial connects as domain domid, whose rights hold.
func (s *Server) Dial(domid uint32) *xenstore.Conn {
	return xenstore.New(s.Pipe(domid))
}

// Pipe is Dial without a client.
func (s *Server) Pipe(domid uint32) io.ReadWriteCloser {
	a, b := net.Pipe()
	c := &client{s: s, domid: domid, nc: b, out: make(chan []byte, 4096), txs: map[uint32]*tx{}}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = b.Close()
		return a
	}
	s.clients[c] = struct{}{}
	s.wg.Add(2)
	go c.write()
	go c.read()
	return a
}

// Introduce makes a domain, whose directory it is to own.
func (s *Server) Introduce(domid uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.domains[domid] = true
	s.gen++
	p := "/local/domain/" + strconv.Itoa(int(domid))
	s.put(s.nodes, p, "")
	n := s.nodes[p]
	n.perms = []wire.Perm{{Access: wire.None, Domain: domid}}
	s.nodes[p] = n
	s.fire("@introduceDomain")
}

// Release is the end of a domain and of its nodes.
func (s *Server) Release(domid uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.domains, domid)
	s.gen++
	s.remove("/local/domain/" + strconv.Itoa(int(domid)))
	s.fire("@releaseDomain")
}

// Conflicts has the next n transactions that write end with EAGAIN.
func (s *Server) Conflicts(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.again = n
}

// Trace is every change since the last call, one line each: "PATH=VALUE" or "-PATH".
func (s *Server) Trace() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.trace
	s.trace = nil
	return t
}

// Get is a node's value; false: there is none.
func (s *Server) Get(path string) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, ok := s.nodes[path]
	return n.value, ok
}

// Watches is how many watches there are.
func (s *Server) Watches() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.clients {
		n += len(c.watches)
	}
	return n
}

// Disconnect ends all connections, as a xenstored that dies.
func (s *Server) Disconnect() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.clients {
		_ = c.nc.Close()
	}
}

// Close does so for good, and waits for the end.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.Disconnect()
	s.wg.Wait()
}

func (c *client) write() {
	defer c.s.wg.Done()
	for b := range c.out {
		if _, err := c.nc.Write(b); err != nil {
			_ = c.nc.Close()
			for range c.out {
			}
			return
		}
	}
}

func (c *client) read() {
	defer c.s.wg.Done()
	defer func() {
		c.s.mu.Lock()
		delete(c.s.clients, c)
		close(c.out)
		c.s.mu.Unlock()
		_ = c.nc.Close()
	}()
	var hdr [wire.HeaderLen]byte
	for {
		if _, err := io.ReadFull(c.nc, hdr[:]); err != nil {
			return
		}
		h, err := wire.ParseHeader(hdr[:])
		if err != nil {
			return
		}
		body := make([]byte, h.Len)
		if _, err := io.ReadFull(c.nc, body); err != nil {
			return
		}
		c.s.mu.Lock()
		ans, code := c.s.serve(c, h, body)
		if code != "" {
			c.send(wire.Error, h, wire.Strings(code))
		} else {
			c.send(h.Type, h, ans)
		}
		if h.Type == wire.Watch && code == "" {
			w := c.watches[len(c.watches)-1]
			c.send(wire.WatchEvent, wire.Header{}, wire.Strings(w.Path, w.Token))
		}
		c.s.mu.Unlock()
	}
}

// send queues a message; a client that reads nothing loses its connection.
func (c *client) send(t wire.Type, h wire.Header, body []byte) {
	b, err := wire.Message(t, h.Req, h.Tx, body)
	if err != nil {
		panic(err)
	}
	select {
	case c.out <- b:
	default:
		_ = c.nc.Close()
	}
}

// fire tells all watches of a change at path. Lock held.
func (s *Server) fire(path string) {
	for c := range s.clients {
		for _, w := range c.watches {
			if w.Path == path || w.Path == "/" && path[0] == '/' || strings.HasPrefix(path, w.Path+"/") {
				c.send(wire.WatchEvent, wire.Header{}, wire.Strings(path, w.Token))
			} else if s.gone(path) && strings.HasPrefix(w.Path, path+"/") {
				c.send(wire.WatchEvent, wire.Header{}, wire.Strings(w.Path, w.Token))
			}
		}
	}
}

func (s *Server) gone(path string) bool { _, ok := s.nodes[path]; return !ok }

func parent(p string) string {
	i := strings.LastIndexByte(p, '/')
	if i <= 0 {
		return "/"
	}
	return p[:i]
}

// put writes to m, parents too.
func (s *Server) put(m map[string]node, path, value string) {
	n, ok := m[path]
	if !ok {
		if up := parent(path); path != "/" {
			if _, there := m[up]; !there {
				s.put(m, up, "")
			} else {
				p := m[up]
				p.gen = s.gen // its list of children
				m[up] = p
			}
			n.perms = slices.Clone(m[up].perms)
		}
	}
	n.value, n.gen = value, s.gen
	m[path] = n
}

func drop(m map[string]node, path string, gen uint64) {
	for p := range m {
		if p == path || strings.HasPrefix(p, path+"/") {
			delete(m, p)
		}
	}
	if p, ok := m[parent(path)]; ok {
		p.gen = gen
		m[parent(path)] = p
	}
}

// remove is Rm of what is there, with its events. Lock held.
func (s *Server) remove(path string) {
	if s.gone(path) {
		return
	}
	drop(s.nodes, path, s.gen)
	s.trace = append(s.trace, "-"+path)
	s.fire(path)
}

// may tells whether a domain may read (or write) a node.
func may(domid uint32, n node, write bool) bool {
	if domid == 0 || len(n.perms) > 0 && n.perms[0].Domain == domid {
		return true
	}
	a := wire.None
	for i, p := range n.perms {
		if i == 0 || p.Domain == domid {
			a = p.Access
		}
	}
	if write {
		return a == wire.WriteOnly || a == wire.Both
	}
	return a == wire.ReadOnly || a == wire.Both
}

// mayPut is may for a node that need not be there.
func mayPut(domid uint32, m map[string]node, path string) bool {
	for {
		if n, ok := m[path]; ok {
			return may(domid, n, true)
		}
		path = parent(path)
	}
}

// serve is one request. Lock held. code is an error's name.
func (s *Server) serve(c *client, h wire.Header, body []byte) (ans []byte, code string) {
	ok := []byte("OK\x00")
	m := s.nodes
	var t *tx
	if h.Tx != 0 {
		if t = c.txs[h.Tx]; t == nil {
			return nil, "ENOENT"
		}
		m = t.nodes
	}
	args, err := wire.ParseStrings(body)
	if h.Type == wire.Write {
		var p, v string
		if p, v, err = wire.ParsePair(body); err == nil {
			args = []string{p, v}
		}
	}
	if err != nil || len(args) == 0 {
		return nil, "EINVAL"
	}
	path := args[0]
	if h.Type == wire.Read && path != "" && path[0] != '/' { // the domain's own
		path = "/local/domain/" + strconv.Itoa(int(c.domid)) + "/" + path
	}
	switch h.Type {
	case wire.Directory, wire.Read, wire.GetPerms, wire.DirectoryPart, wire.Write, wire.Mkdir, wire.Rm, wire.SetPerms, wire.Watch:
		if wire.CheckPath(path) != nil {
			return nil, "EINVAL"
		}
	}
	if t != nil && path != "T" && path != "F" {
		if _, seen := t.seen[path]; !seen {
			t.seen[path] = t.base[path].gen // as it was when the transaction began; 0: not there
		}
	}
	n, there := m[path]
	switch h.Type {
	case wire.Read, wire.Directory, wire.DirectoryPart, wire.GetPerms:
		if !there {
			return nil, "ENOENT"
		}
		if !may(c.domid, n, false) {
			return nil, "EACCES"
		}
	}
	switch h.Type {
	case wire.Read:
		return []byte(n.value), ""
	case wire.Directory:
		b := wire.Strings(children(m, path)...)
		if len(b) > s.chunk {
			return nil, "E2BIG"
		}
		return b, ""
	case wire.DirectoryPart:
		if len(args) < 2 {
			return nil, "EINVAL"
		}
		return s.part(m, path, args[1])
	case wire.GetPerms:
		var l []string
		for _, p := range n.perms {
			l = append(l, p.String())
		}
		return wire.Strings(l...), ""
	case wire.TransactionStart:
		s.txs++
		c.txs[s.txs] = &tx{base: maps.Clone(s.nodes), nodes: maps.Clone(s.nodes), seen: map[string]uint64{}}
		return wire.Strings(strconv.Itoa(int(s.txs))), ""
	case wire.TransactionEnd:
		if t == nil {
			return nil, "EINVAL"
		}
		delete(c.txs, h.Tx)
		if path == "F" {
			return ok, ""
		}
		return ok, s.commit(t)
	case wire.GetDomainPath:
		return wire.Strings("/local/domain/" + path), ""
	case wire.IsDomainIntroduced:
		id, _ := strconv.Atoi(path)
		if s.domains[uint32(id)] {
			return wire.Strings("T"), ""
		}
		return wire.Strings("F"), ""
	case wire.Watch:
		if len(args) < 2 {
			return nil, "EINVAL"
		}
		w := xenstore.Event{Path: path, Token: args[1]}
		if slices.Contains(c.watches, w) {
			return nil, "EEXIST"
		}
		c.watches = append(c.watches, w)
		return ok, ""
	case wire.Unwatch:
		w := xenstore.Event{Path: path, Token: args[len(args)-1]}
		i := slices.Index(c.watches, w)
		if i < 0 {
			return nil, "ENOENT"
		}
		c.watches = slices.Delete(c.watches, i, i+1)
		return ok, ""
	}
	// Changes.
	if !mayPut(c.domid, m, path) {
		return nil, "EACCES"
	}
	if t == nil {
		s.gen++
	} else {
		t.wrote = append(t.wrote, path)
	}
	switch h.Type {
	case wire.Write:
		s.put(m, path, args[1])
	case wire.Mkdir:
		if there {
			return ok, ""
		}
		s.put(m, path, "")
	case wire.Rm:
		if !there {
			if _, up := m[parent(path)]; !up {
				return nil, "ENOENT"
			}
			return ok, ""
		}
		if t == nil {
			s.remove(path)
			return ok, ""
		}
		for p := range m {
			if strings.HasPrefix(p, path+"/") {
				t.wrote = append(t.wrote, p) // the folder may be made again
			}
		}
		drop(m, path, s.gen)
		return ok, ""
	case wire.SetPerms:
		if !there {
			return nil, "ENOENT"
		}
		n.perms = nil
		for _, a := range args[1:] {
			p, err := wire.ParsePerm(a)
			if err != nil {
				return nil, "EINVAL"
			}
			n.perms = append(n.perms, p)
		}
		n.gen = s.gen
		m[path] = n
	default:
		return nil, "ENOSYS"
	}
	if t == nil {
		s.trace = append(s.trace, path+"="+m[path].value)
		s.fire(path)
	}
	return ok, ""
}

// commit ends a transaction.
func (s *Server) commit(t *tx) (code string) {
	if len(t.wrote) == 0 {
		return ""
	}
	if s.again > 0 {
		s.again--
		return "EAGAIN"
	}
	for p, gen := range t.seen {
		if n, ok := s.nodes[p]; ok && n.gen != gen || !ok && gen != 0 {
			return "EAGAIN"
		}
	}
	s.gen++
	var changed []string
	for _, p := range t.wrote {
		if slices.Contains(changed, p) {
			continue
		}
		changed = append(changed, p)
		if n, ok := t.nodes[p]; ok {
			s.put(s.nodes, p, n.value)
			n.gen = s.gen
			s.nodes[p] = n
			s.trace = append(s.trace, p+"="+n.value)
		} else if !s.gone(p) {
			drop(s.nodes, p, s.gen)
			s.trace = append(s.trace, "-"+p)
		}
	}
	for _, p := range changed {
		s.fire(p)
	}
	return ""
}

func children(m map[string]node, path string) (l []string) {
	pre := path + "/"
	if path == "/" {
		pre = "/"
	}
	for p := range m {
		if rest, ok := strings.CutPrefix(p, pre); ok && rest != "" && !strings.Contains(rest, "/") {
			l = append(l, rest)
		}
	}
	sort.Strings(l)
	return l
}

func (s *Server) part(m map[string]node, path, off string) (ans []byte, code string) {
	all := wire.Strings(children(m, path)...)
	at, err := strconv.Atoi(off)
	if err != nil || at < 0 || at > len(all) {
		return nil, "EINVAL"
	}
	ans = wire.Strings(strconv.FormatUint(m[path].gen, 10))
	rest := all[at:]
	if len(rest) <= s.chunk {
		return append(append(ans, rest...), 0), ""
	}
	rest = rest[:s.chunk]
	return append(ans, rest[:strings.LastIndexByte(string(rest), 0)+1]...), ""
}
