package scsi

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A model of SPC-4 §5.13 that shares no code with the core: it is written by the nexus,
// not by the table, and keeps reservations as sets of names.

type modelNexus struct {
	name string // of the initiator port
	port uint16
}

type model struct {
	ports   []uint16
	key     map[modelNexus]uint64
	order   []modelNexus // of registration
	typ     int
	holders map[modelNexus]bool
	gen     uint32
	aptpl   bool
	legacy  modelNexus // holds it by RESERVE
	pending map[modelNexus][]string
}

func newModel(ports ...uint16) *model {
	return &model{ports: ports, key: map[modelNexus]uint64{}, holders: map[modelNexus]bool{}, pending: map[modelNexus][]string{}}
}

func (m *model) setKey(n modelNexus, k uint64) {
	if m.key[n] == 0 {
		m.order = append(m.order, n)
		if m.typ >= 7 {
			m.holders[n] = true
		}
	}
	m.key[n] = k
}

func (m *model) drop(n modelNexus) {
	delete(m.key, n)
	m.order = slices.DeleteFunc(m.order, func(o modelNexus) bool { return o == n })
	delete(m.holders, n)
	if len(m.holders) == 0 {
		m.typ = 0
	}
}

func (m *model) reserve(n modelNexus, typ int) {
	m.typ = typ
	clear(m.holders)
	m.holders[n] = true
	if typ >= 7 {
		for _, o := range m.order {
			m.holders[o] = true
		}
	}
}

func (m *model) raise(to []modelNexus, not modelNexus, ua string) {
	for _, n := range to {
		if n != not && !slices.Contains(m.pending[n], ua) {
			m.pending[n] = append(m.pending[n], ua)
		}
	}
}

// forbidden says what n may not do: r, w, t (TEST UNIT READY).
func (m *model) forbidden(n modelNexus) string {
	switch {
	case m.legacy != modelNexus{} && m.legacy != n:
		return "rwt"
	case m.typ == 0, m.holders[n], m.typ >= 5 && m.key[n] != 0:
		return ""
	case m.typ%2 == 1 && m.typ != 3: // 1, 5, 7
		return "w"
	}
	return "rw"
}

type modelOut struct {
	sa        int
	scope     int
	typ       int
	rk, sark  uint64
	aptpl     bool
	all, spec bool
	unreg     bool
	ids       []string // of SPEC_I_PT
	dest      modelNexus
}

const (
	badList = "05 26/00"
	badCDB  = "05 24/00"
	mGood   = "good"
)

// out does a PERSISTENT RESERVE OUT and says how it ends.
func (m *model) out(n modelNexus, o *modelOut) string {
	if m.legacy != (modelNexus{}) {
		return conflicts
	}
	if o.spec && o.sa != 0 {
		return badList
	}
	mine := m.key[n]
	switch o.sa {
	case 0, 6:
		return m.outRegister(n, o)
	case 8:
		return "05 26/04"
	}
	if mine == 0 || o.rk != mine {
		return conflicts
	}
	before := slices.Clone(m.order)
	knownType := slices.Contains([]int{1, 3, 5, 6, 7, 8}, o.typ)
	switch o.sa {
	case 1:
		switch {
		case o.scope != 0 || !knownType:
			return badCDB
		case m.typ == 0:
			m.reserve(n, o.typ)
		case !m.holders[n] || m.typ != o.typ:
			return conflicts
		}
		return mGood
	case 2:
		switch {
		case o.scope != 0:
			return badCDB
		case m.typ == 0 || !m.holders[n]:
			return mGood
		case m.typ != o.typ:
			return "05 26/04"
		}
		if m.typ >= 5 {
			m.raise(before, n, "2a/04")
		}
		m.typ = 0
		clear(m.holders)
		return mGood
	case 3:
		m.raise(before, n, "2a/03")
		for _, x := range before {
			m.drop(x)
		}
		m.gen++
		return mGood
	case 4, 5:
		var victims []modelNexus
		for _, x := range before {
			if m.key[x] == o.sark || o.sark == 0 && m.typ >= 7 {
				victims = append(victims, x)
			}
		}
		replace := m.typ >= 7 && o.sark == 0
		if m.typ > 0 && m.typ < 7 {
			if o.sark == 0 {
				return badList
			}
			for h := range m.holders {
				replace = m.key[h] == o.sark
			}
		}
		if len(victims) == 0 {
			return conflicts
		}
		if replace && (o.scope != 0 || !knownType) {
			return badCDB
		}
		was := m.typ
		for _, v := range victims {
			if v != n || !replace {
				m.drop(v)
			}
		}
		m.raise(victims, n, "2a/05")
		if replace {
			m.reserve(n, o.typ)
			if o.typ != was {
				m.raise(m.order, n, "2a/04")
			}
		}
		m.gen++
		return mGood
	}
	// REGISTER AND MOVE
	switch {
	case m.typ == 0:
		return badCDB
	case m.typ >= 7 || !m.holders[n]:
		return conflicts
	case o.sark == 0 || o.dest.name == n.name || !slices.Contains(m.ports, o.dest.port):
		return badList
	}
	m.setKey(o.dest, o.sark)
	clear(m.holders)
	m.holders[o.dest] = true
	if o.unreg {
		m.drop(n)
	}
	m.aptpl = o.aptpl
	m.gen++
	return mGood
}

func (m *model) outRegister(n modelNexus, o *modelOut) string {
	mine := m.key[n]
	if o.sa == 0 && o.rk != mine {
		return conflicts
	}
	if o.spec && mine != 0 {
		return badList
	}
	if mine == 0 && o.sark == 0 {
		return mGood
	}
	ports := []uint16{n.port}
	if o.all {
		for _, p := range m.ports {
			if p != n.port {
				ports = append(ports, p)
			}
		}
	}
	var others []modelNexus
	if o.spec {
		for _, id := range o.ids {
			for _, p := range ports {
				x := modelNexus{id, p}
				if m.key[x] != 0 {
					return badList
				}
				others = append(others, x)
			}
		}
	}
	for _, p := range ports {
		x := modelNexus{n.name, p}
		if o.sa == 0 && m.key[x] != o.rk {
			continue // it would be a conflict there
		}
		if o.sark != 0 {
			m.setKey(x, o.sark)
			continue
		}
		if m.key[x] == 0 {
			continue
		}
		tell := m.holders[x] && (m.typ == 5 || m.typ == 6)
		m.drop(x)
		if tell {
			m.raise(m.order, n, "2a/04")
		}
	}
	for _, x := range others {
		m.setKey(x, o.sark)
	}
	m.aptpl = o.aptpl
	m.gen++
	return mGood
}

// legacyOut is RESERVE(6) or RELEASE(6).
func (m *model) legacyOut(n modelNexus, reserve bool) string {
	if len(m.order) > 0 {
		if m.holders[n] || m.typ >= 5 && m.key[n] != 0 {
			return mGood
		}
		return conflicts
	}
	if reserve {
		if m.legacy != (modelNexus{}) && m.legacy != n {
			return conflicts
		}
		m.legacy = n
	} else if m.legacy == n {
		m.legacy = modelNexus{}
	}
	return mGood
}

// restart is a power cycle.
func (m *model) restart() {
	m.gen = 0
	m.legacy = modelNexus{}
	clear(m.pending)
	if !m.aptpl {
		for _, n := range slices.Clone(m.order) {
			m.drop(n)
		}
	}
	if len(m.order) == 0 {
		m.aptpl = false
	}
}

// modelRun runs random commands against a unit and the model.
type modelRun struct {
	t    *testing.T
	rand *rand.Rand
	m    *model
	mem  *rigMemory
	r    *rig
	ps   map[uint16]*Port
	nx   map[modelNexus]*rigNexus // nil: not there
	all  []modelNexus
	log  []string
}

func (x *modelRun) start() {
	c := sharedConf()
	c.Memory = x.mem
	x.r = newRig(x.t, c, newRigStore(1<<20))
	tg2 := NewTarget(TargetConfig{Name: "t2"})
	if err := tg2.Map(0, x.r.u, MapOptions{}); err != nil {
		x.t.Fatal(err)
	}
	x.ps = map[uint16]*Port{x.r.p.conf.RelID: x.r.p, 50: tg2.NewPort(PortConfig{RelID: 50, Protocol: 5})}
	x.t.Cleanup(func() { tg2.Close(0, nil) })
	clear(x.nx)
}

// come brings a nexus (back), whose unit attentions are 29/00 and what is pending.
func (x *modelRun) come(n modelNexus) {
	x.nx[n] = x.r.attach(x.ps[n.port], n.name)
	x.nx[n].expect("06 29/00", "00 00 00 00 00 00", nil, 0)
}

func (x *modelRun) leave(n modelNexus) {
	done := make(chan int, 1)
	x.nx[n].nx.Close(0, func(s int) { done <- s })
	<-done
	delete(x.nx, n)
	if x.m.legacy == n {
		x.m.legacy = modelNexus{}
	}
}

func (x *modelRun) key() uint64 { return uint64(x.rand.IntN(4)) }

// step runs one random command.
func (x *modelRun) step() {
	n := x.all[x.rand.IntN(len(x.all))]
	if x.rand.IntN(2) == 0 {
		for _, h := range x.all { // rather one that can do much
			if x.m.holders[h] {
				n = h
			}
		}
	}
	if x.nx[n] == nil {
		if x.rand.IntN(3) > 0 {
			return
		}
		x.logf("%v comes", n)
		x.come(n)
		return
	}
	c := x.nx[n]
	var got, want, what string
	switch k := x.rand.IntN(40); {
	case k == 0:
		x.logf("%v goes", n)
		x.leave(n)
		return
	case k == 1 && x.rand.IntN(4) == 0:
		x.logf("restart")
		x.start()
		x.m.restart()
		return
	case k == 2:
		what, got, want = "RESERVE(6)", c.do("16 00 00 00 00 00", nil, 0).outcome(), x.m.legacyOut(n, true)
	case k == 3 || x.m.legacy == n && k < 20:
		what, got, want = "RELEASE(6)", c.do("17 00 00 00 00 00", nil, 0).outcome(), x.m.legacyOut(n, false)
	default:
		o := x.random(n)
		what = fmt.Sprintf("%+v", *o)
		list, scopeType := x.list(o)
		got = c.do(outCDB(byte(o.sa), scopeType, uint32(len(list))), list, 0).outcome()
		if f := strings.Fields(got); len(f) > 2 {
			got = f[0] + " " + f[1] // not where it points
		}
		want = x.m.out(n, o)
	}
	x.logf("%v %s: %s", n, what, got)
	if got != want {
		x.fatalf("%s, the model says %s", got, want)
	}
}

func (x *modelRun) random(n modelNexus) *modelOut {
	// Weighted so that there are registrations and reservations most of the time.
	weights := [...]int{0: 30, 1: 25, 2: 6, 3: 2, 4: 8, 5: 8, 6: 10, 7: 12}
	sa := 0
	for k := x.rand.IntN(101); k >= weights[sa]; sa++ {
		k -= weights[sa]
	}
	o := &modelOut{
		sa: sa, typ: []int{1, 3, 5, 6, 7, 8}[x.rand.IntN(6)],
		rk: x.m.key[n], sark: x.key(), aptpl: x.rand.IntN(3) == 0,
	}
	if (sa == 0 || sa == 6 || sa == 7) && x.rand.IntN(8) > 0 {
		o.sark = 1 + x.key()%3
	}
	if (sa == 4 || sa == 5) && len(x.m.order) > 0 && x.rand.IntN(3) > 0 {
		o.sark = x.m.key[x.m.order[x.rand.IntN(len(x.m.order))]]
	}
	if x.rand.IntN(6) == 0 {
		o.rk = x.key()
	}
	switch x.rand.IntN(20) {
	case 0:
		o.scope = 1
	case 1:
		o.typ = 4
	case 2:
		o.sa = 8
	case 3:
		o.spec = true
	}
	if o.sa == 0 || o.sa == 6 {
		o.all = x.rand.IntN(5) == 0
	}
	if o.sa == 0 && x.rand.IntN(4) == 0 {
		o.spec = true
		for range x.rand.IntN(3) {
			o.ids = append(o.ids, x.all[x.rand.IntN(len(x.all))].name)
		}
	}
	if o.sa == 7 {
		o.spec = false
		o.unreg = x.rand.IntN(2) == 0
		o.dest = x.all[x.rand.IntN(len(x.all))]
		if x.rand.IntN(10) == 0 {
			o.dest.port = 51
		}
	}
	return o
}

func (x *modelRun) list(o *modelOut) (list []byte, scopeType byte) {
	scopeType = byte(o.scope<<4 | o.typ)
	var flags byte
	if o.aptpl {
		flags = 1
	}
	if o.sa == 7 {
		if o.unreg {
			flags |= 2
		}
		return prMove(o.rk, o.sark, flags, o.dest.port, iscsiTransportID(o.dest.name)), scopeType
	}
	if o.all {
		flags |= 4
	}
	var ids []string
	if o.spec {
		flags |= 8
		for _, id := range o.ids {
			ids = append(ids, iscsiTransportID(id))
		}
	}
	return prList(o.rk, o.sark, flags, ids...), scopeType
}

// check compares everything that can be seen.
func (x *modelRun) check() {
	m := x.m
	for n, c := range x.nx {
		var uas []string
		for range 10 {
			got := c.do("00 00 00 00 00 00", nil, 0).outcome()
			if !strings.HasPrefix(got, "06 ") {
				want := mGood
				if strings.Contains(m.forbidden(n), "t") {
					want = conflicts
				}
				if got != want {
					x.fatalf("%v: TEST UNIT READY %s, the model says %s", n, got, want)
				}
				break
			}
			uas = append(uas, got[3:])
		}
		if !slices.Equal(uas, m.pending[n]) {
			x.fatalf("%v: unit attentions %v, the model says %v", n, uas, m.pending[n])
		}
		delete(m.pending, n)
		for _, a := range []struct{ letter, cdb string }{{"r", "28 00 00000000 00 0001 00"}, {"w", "2a 00 00000000 00 0001 00"}} {
			want := mGood
			if strings.Contains(m.forbidden(n), a.letter) {
				want = conflicts
			}
			if got := c.do(a.cdb, make([]byte, 512), 512).outcome(); got != want {
				x.fatalf("%v: %s %s, the model says %s", n, a.cdb[:2], got, want)
			}
		}
	}
	for _, c := range x.nx {
		x.checkStatus(c)
		break
	}
}

func (x *modelRun) checkStatus(c *rigNexus) {
	m := x.m
	full := c.do("5e 03 0000000000 ffff 00", nil, 65535)
	if m.legacy != (modelNexus{}) {
		if got := full.outcome(); got != conflicts {
			x.fatalf("READ FULL STATUS %s", got)
		}
		return
	}
	b := full.in()
	if g := binary.BigEndian.Uint32(b); g != m.gen {
		x.fatalf("PRGENERATION %d, the model says %d", g, m.gen)
	}
	b = b[8:]
	for _, n := range m.order {
		id := iscsiTransportID(n.name)
		if len(b) < 24+len(id) {
			x.fatalf("%v is missing", n)
		}
		var holder, typ byte
		if m.holders[n] {
			holder, typ = 1, byte(m.typ)
		}
		if k := binary.BigEndian.Uint64(b); k != m.key[n] || binary.BigEndian.Uint16(b[18:]) != n.port || string(b[24:24+len(id)]) != id || b[12] != holder || b[13] != typ {
			x.fatalf("%v: key %d, port %d, % x; the model says %d, holder %d, type %d", n, k, binary.BigEndian.Uint16(b[18:]), b[12:14], m.key[n], holder, typ)
		}
		b = b[24+len(id):]
	}
	if len(b) != 0 {
		x.fatalf("%d bytes too much", len(b))
	}
	if caps := c.do("5e 02 0000000000 0008 00", nil, 8).in(); caps[3]&1 != 0 != m.aptpl {
		x.fatalf("PTPL_A %v", !m.aptpl)
	}
}

func (x *modelRun) logf(f string, a ...any) { x.log = append(x.log, fmt.Sprintf(f, a...)) }

func (x *modelRun) fatalf(f string, a ...any) {
	x.t.Helper()
	x.t.Log(strings.Join(x.log[max(0, len(x.log)-40):], "\n"))
	x.t.Fatalf(f, a...)
}

// TestPRModel runs random commands of four nexuses at two targets, with nexuses that go
// and come and with power cycles, and compares all that shows after each of them.
func TestPRModel(t *testing.T) {
	seconds, _ := strconv.Atoi(os.Getenv("VTGT_SCSITEST_SECONDS"))
	end := time.Now().Add(time.Duration(seconds) * time.Second)
	for seed := uint64(1); seed <= 4 || time.Now().Before(end); seed++ {
		ok := t.Run(fmt.Sprint(seed), func(t *testing.T) {
			x := &modelRun{t: t, rand: rand.New(rand.NewPCG(seed, 7)), mem: &rigMemory{}, nx: map[modelNexus]*rigNexus{}}
			port := goldenPort.RelID
			x.m = newModel(port, 50)
			for _, n := range []modelNexus{{"iqn.a,i,0x000000000001", port}, {"iqn.a,i,0x000000000001", 50}, {"iqn.b,i,0x000000000002", port}, {"iqn.c,i,0x000000000003", 50}} {
				x.all = append(x.all, n)
			}
			x.start()
			for range 250 {
				x.step()
				x.check()
			}
		})
		if !ok {
			return
		}
	}
}
