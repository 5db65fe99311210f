package libvirt

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
)

func web1(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile("testdata/web1.xml")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func mustParse(t testing.TB, text string) *definition {
	t.Helper()
	d, err := parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestPlaces(t *testing.T) {
	d := mustParse(t, web1(t))
	// Controller 0 is another model; units 0 and 1 of 1 are taken, by a disk and a host's.
	if c, u := place(d); c != 1 || u != 2 {
		t.Errorf("%d %d", c, u)
	}
	// Where the two definitions differ: what is best for both.
	one := mustParse(t, `<domain><devices><controller type='scsi' index='0' model='virtio-scsi'/></devices></domain>`)
	if c, u := place(d, one); c != 1 || u != 2 {
		t.Errorf("%d %d", c, u)
	}
	none := mustParse(t, `<domain type='qemu'/>`)
	if c, u := place(none); c != 0 || u != 0 {
		t.Errorf("%d %d", c, u)
	}
	if n := freeName(d, one); n != "sdb" {
		t.Errorf("%s", n)
	}
	many := &strings.Builder{}
	many.WriteString("<domain><devices>")
	for n := 'a'; n <= 'z'; n++ {
		many.WriteString("<disk><target dev='sd" + string(n) + "' bus='scsi'/></disk>")
	}
	many.WriteString("</devices></domain>")
	if n := freeName(mustParse(t, many.String())); n != "sdaa" {
		t.Errorf("%s", n)
	}
	if p, plain := d.pcie(); !p || plain {
		t.Error("pcie")
	}
	if ps := d.ports(); !slices.Equal(ps, []int{10, 2, 1}) { // 3 does not take plugs
		t.Errorf("%v", ps)
	}
	if ps := d.freePorts(); !slices.Equal(ps, []int{2}) { // on 1 the controller, on 10 the interface
		t.Errorf("%v", ps)
	}
	if n := d.nextPort(); n != 11 {
		t.Errorf("%d", n)
	}
	if s := d.freeSlot(); s != 0x1b {
		t.Errorf("0x%x", s)
	}
}

func TestSharedMemory(t *testing.T) {
	for text, want := range map[string]bool{
		`<domain/>`: false,
		`<domain><memoryBacking><access mode='shared'/></memoryBacking></domain>`:                                                  true,
		`<domain><memoryBacking><access mode='private'/></memoryBacking></domain>`:                                                 false,
		`<domain><memoryBacking><hugepages/></memoryBacking></domain>`:                                                             false,
		`<domain><cpu><numa><cell id='0' memory='1' memAccess='shared'/></numa></cpu></domain>`:                                    true,
		`<domain><cpu><numa><cell id='0' memory='1' memAccess='shared'/><cell id='1' memory='1'/></numa></cpu></domain>`:           false,
		`<domain><cpu><numa><cell id='0' memory='1'/></numa></cpu><memoryBacking><access mode='shared'/></memoryBacking></domain>`: true,
	} {
		if got := mustParse(t, text).shared(); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

// The command line comes and goes, and leaves everything else as it was.
func TestCommandLine(t *testing.T) {
	was := web1(t)
	d := mustParse(t, was)
	args, bus, err := vhostArgs(d, "vtgt-1", "/run/a,b&'c\".sock")
	// One free port is not taken: libvirt would give it away next.
	if err != nil || bus != "vtgt-1-port" {
		t.Fatalf("%v %v", bus, err)
	}
	want := []string{
		"-chardev", `socket,id=vtgt-1,path=/run/a,,b&'c".sock`,
		"-device", `{"addr":"0x1b","bus":"pcie.0","chassis":155,"driver":"pcie-root-port","id":"vtgt-1-port"}`,
		"-device", `{"bus":"vtgt-1-port","chardev":"vtgt-1","driver":"vhost-user-scsi-pci","id":"vtgt-1"}`,
	}
	if !slices.Equal(args, want) {
		t.Errorf("%q", args)
	}
	one, err := addArgs(was, args)
	if err != nil {
		t.Fatal(err)
	}
	d = mustParse(t, one)
	if got := d.commandLine(); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if !d.mentions("vtgt-1") || d.mentions("vtgt") && !d.mentions("vtgt-1") || d.freeSlot() != 0x1a {
		t.Errorf("slot 0x%x", d.freeSlot())
	}
	// A second one, and they go in any order.
	more, _, err := vhostArgs(d, "vtgt-12", "/two")
	if err != nil {
		t.Fatal(err)
	}
	two, err := addArgs(one, more)
	if err != nil {
		t.Fatal(err)
	}
	if got := mustParse(t, two).commandLine(); len(got) != 12 {
		t.Errorf("%q", got)
	}
	for _, ids := range [][]string{{"vtgt-1", "vtgt-12"}, {"vtgt-12", "vtgt-1"}} {
		text := two
		for _, id := range ids {
			var found bool
			if text, found, err = removeArgs(text, id); err != nil || !found {
				t.Fatal(err)
			}
			if _, found, err = removeArgs(text, id); err != nil || found {
				t.Errorf("%v %v", found, err)
			}
		}
		// But for the name of the space, which libvirt makes anew.
		if text = strings.Replace(text, " xmlns:qemu='"+qemuSpace+"'", "", 1); squeeze(text) != squeeze(was) {
			t.Errorf("%s", text)
		}
	}
	// What others have there stays.
	mine, err := addArgs(was, []string{"-msg", "timestamp=on", "-device", `{"id":"vtgt-10"}`, "-device", "foo,id=vtgt-1", "-chardev"})
	if err != nil {
		t.Fatal(err)
	}
	both, err := addArgs(mine, args)
	if err != nil {
		t.Fatal(err)
	}
	if back, found, err := removeArgs(both, "vtgt-1"); err != nil || !found || squeeze(back) != squeeze(mine) {
		t.Errorf("%v %v\n%s", found, err, back)
	}
	// With another prefix, an empty element, and variables.
	for _, cl := range []string{
		`<q:commandline xmlns:q='` + qemuSpace + `'/>`,
		`<q:commandline xmlns:q='` + qemuSpace + `'></q:commandline>`,
		`<q:commandline xmlns:q='` + qemuSpace + `'><q:env name='A' value='B'/></q:commandline>`,
	} {
		text, err := addArgs("<domain type='qemu'>"+cl+"</domain>", args)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(cl, "/>") {
			continue // needs the prefix qemu: of the domain, which libvirt always writes
		}
		if got := mustParse(t, text).commandLine(); !slices.Equal(got, want) {
			t.Errorf("%s: %q", text, got)
		}
		if back, found, err := removeArgs(text, "vtgt-1"); err != nil || !found || strings.Contains(cl, "env") != strings.Contains(back, "env") {
			t.Errorf("%s %v", back, err)
		}
	}
}

// squeeze is the text without blanks between elements.
func squeeze(s string) string {
	var out []string
	for _, l := range strings.Split(s, "\n") {
		out = append(out, strings.TrimSpace(l))
	}
	return strings.Join(out, "")
}

// Of machines with room the port is libvirt's, of those with a plain bus there is none.
func TestVHostPlaces(t *testing.T) {
	two := mustParse(t, strings.Replace(web1(t), "bus='0x0a'", "bus='0x01'", 1))
	if args, bus, err := vhostArgs(two, "v", "/s"); err != nil || bus != "pci.10" || len(args) != 4 {
		t.Errorf("%q %v %v", args, bus, err)
	}
	pc := mustParse(t, `<domain><devices><controller type='pci' index='0' model='pci-root'/><sound><address type='pci' domain='0' bus='0x00' slot='0x1c' function='0'/></sound></devices></domain>`)
	args, bus, err := vhostArgs(pc, "v", "/s")
	var dev struct{ Bus, Addr string }
	if err != nil || bus != "pci.0" || json.Unmarshal([]byte(args[3]), &dev) != nil || dev.Bus != "pci.0" || dev.Addr != "0x1b" {
		t.Errorf("%q %v %v", args, bus, err)
	}
	if _, _, err := vhostArgs(mustParse(t, "<domain/>"), "v", "/s"); err == nil || !strings.Contains(err.Error(), "no PCI bus") {
		t.Errorf("%v", err)
	}
}

func TestPort(t *testing.T) {
	was := web1(t)
	text, err := addPort(was, 11, 0x1b)
	if err != nil {
		t.Fatal(err)
	}
	d := mustParse(t, text)
	if ps := d.freePorts(); !slices.Equal(ps, []int{11, 2}) || d.freeSlot() != 0x1a {
		t.Errorf("%v", ps)
	}
	if back, err := removePort(text, 11); err != nil || squeeze(back) != squeeze(was) {
		t.Errorf("%v\n%s", err, back)
	}
	if back, err := removePort(text, 10); err != nil || back != text { // the interface is on it
		t.Errorf("%v", err)
	}
	if back, err := removePort(text, 9); err != nil || back != text { // in a comment
		t.Errorf("%v", err)
	}
	for _, bad := range []string{"<domain/>", "<domain><devices/></domain>", "<domain", "x", ""} {
		if out, err := addPort(bad, 1, 2); err == nil {
			t.Errorf("%q: %q", bad, out)
		}
	}
}

// FuzzSplice: whatever the text, what is added is found and goes again, and nothing
// panics.
func FuzzSplice(f *testing.F) {
	f.Add(web1(f))
	f.Add("<domain></domain>")
	f.Add("<domain xmlns:qemu='" + qemuSpace + "'><qemu:commandline/></domain>")
	f.Add("<domain><commandline xmlns='" + qemuSpace + "'><arg value='-device'/></commandline></domain>")
	f.Add("<domain><devices><controller type='pci' index='1' model='pcie-root-port'></devices></domain>")
	args := commandLineArgs("vtgt-f", "/s", "pcie.0", 3, true)
	f.Fuzz(func(t *testing.T, text string) {
		if d, err := parse(text); err == nil {
			place(d)
			freeName(d)
			d.freePorts()
			d.freeSlot()
			d.shared()
			_, _, _ = vhostArgs(d, "v", "/s")
		}
		_, _ = removePort(text, 1)
		_, _ = addPort(text, 1, 2)
		was, found, err := removeArgs(text, "vtgt-f")
		if err != nil || found {
			return
		}
		added, err := addArgs(was, args)
		if err != nil {
			return
		}
		es, err := elements(added, "domain", "qemu:commandline", "qemu:arg")
		if err != nil || len(es) < len(args) {
			return // a text in which the prefix means something else
		}
		back, found, err := removeArgs(added, "vtgt-f")
		if err != nil || !found || strings.Contains(back, "vtgt-f-port") != strings.Contains(was, "vtgt-f-port") {
			t.Errorf("%v %v: %q, then %q", found, err, added, back)
		}
	})
}
