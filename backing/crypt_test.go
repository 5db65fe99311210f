package backing_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/backing/backingtest"
	"github.com/vtgt/vtgt/internal/loop"
)

// keyFile makes a key file of keys "00…", "11…", ….
func keyFile(t testing.TB, digits string) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "key")
	text := "# a key file\n\n"
	for _, d := range digits {
		text += strings.Repeat(string(d), 64) + "\n"
	}
	if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

func cryptOptions(t testing.TB, g *loop.Group) backing.Options {
	return backing.Options{Size: 8 << 20, Create: true, Group: g, KeyFile: keyFile(t, "5")}
}

func TestEncrypted(t *testing.T) {
	backingtest.Run(t, backingtest.Config{Open: func(t *testing.T, g *loop.Group) backing.Store {
		return open(t, "encrypted:"+filepath.Join(t.TempDir(), "a.img"), cryptOptions(t, g))
	}})
}

func TestEncryptedAtomic(t *testing.T) {
	g := newGroup(t)
	dir := t.TempDir()
	o := cryptOptions(t, g)
	o.AtomicLog, o.AtomicLogSize = filepath.Join(dir, "a.log"), 1<<20
	st := open(t, "encrypted:"+filepath.Join(dir, "a.img"), o)
	d := intentDriver(t, st, g)
	b := bytes.Repeat([]byte("secret! "), 64<<10)
	if err := d.Write(512, b, backing.Atomic); err != nil {
		t.Fatal(err)
	}
	is := make([]byte, len(b))
	if err := d.Read(512, is); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(is, b) {
		t.Error("it does not read what was written")
	}
	// Neither the image nor the log shows it.
	for _, f := range []string{"a.img", "a.log"} {
		raw, err := os.ReadFile(filepath.Join(dir, f))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(raw, []byte("secret!")) {
			t.Errorf("%s holds what was written", f)
		}
	}
	endAll(t, d, st)
}

// What is on the disk is AES-256-XTS with the number of the sector, and a hole is one.
func TestEncryptedFormat(t *testing.T) {
	backing.CheckXTS(t)
	g := newGroup(t)
	path := filepath.Join(t.TempDir(), "a.img")
	o := cryptOptions(t, g)
	st := open(t, "encrypted:"+path, o)
	if n := st.Info().Size; n != 8<<20 {
		t.Errorf("size %d", n)
	}
	if !st.Info().Rekeys {
		t.Error("it has no key to replace")
	}
	d := intentDriver(t, st, g)
	if err := d.Write(8192, bytes.Repeat([]byte{1}, 1024), backing.FUA); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(raw) != 9<<20 {
		t.Errorf("the file has %d bytes", len(raw))
	}
	if !bytes.Equal(raw[:4096], raw[4096:8192]) || string(raw[:8]) != "VTGTCRYP" {
		t.Error("the two copies of the header differ")
	}
	data := raw[1<<20:]
	if len(bytes.Trim(data[:8192], "\x00")) != 0 || bytes.Equal(data[8192:8704], data[8704:9216]) || isZero(data[8192:8704]) {
		t.Error("the sectors are not where they should be")
	}
	if err := d.Discard(8192, 512); err != nil {
		t.Fatal(err)
	}
	is := make([]byte, 1024)
	if err := d.Read(8192, is); err != nil {
		t.Fatal(err)
	}
	if !isZero(is[:512]) || !bytes.Equal(is[512:], bytes.Repeat([]byte{1}, 512)) {
		t.Error("a discarded sector does not read zero, or its neighbour is not what it was")
	}
	endAll(t, d, st)
}

func isZero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

func TestEncryptedOpen(t *testing.T) {
	g := newGroup(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "a.img")
	o := cryptOptions(t, g)
	mine := o.KeyFile
	st := open(t, "encrypted:"+path, o)
	d := intentDriver(t, st, g)
	want := bytes.Repeat([]byte("abcdefgh"), 1<<10)
	if err := d.Write(0, want, 0); err != nil {
		t.Fatal(err)
	}
	// Locked, as a file is.
	if st, err := backing.Open("file:"+path, backing.Options{Group: g}); !errors.Is(err, backing.ErrInUse) {
		t.Errorf("opened beside it: %v %v", st, err)
	}
	if err := st.Resize(16 << 20); err != nil || st.Info().Size != 16<<20 {
		t.Errorf("resize: %v, size %d", err, st.Info().Size)
	}
	endAll(t, d, st)
	o.Size = 0

	refused := func(what, spec string, o backing.Options, say string) {
		t.Helper()
		st, err := backing.Open(spec, o)
		if err == nil {
			endAll(t, nil, st)
			t.Errorf("%s: opened", what)
		} else if !strings.Contains(err.Error(), say) {
			t.Errorf("%s: %v", what, err)
		}
	}
	o.KeyFile = keyFile(t, "6")
	refused("another key", "encrypted:"+path, o, "no key of the key file opens it")
	o.KeyFile = filepath.Join(dir, "none")
	refused("no key file", "encrypted:"+path, o, "od -An -vtx1 -N32 /dev/urandom")
	o.KeyFile = keyFile(t, "5")
	if err := os.Chmod(o.KeyFile, 0o640); err != nil {
		t.Fatal(err)
	}
	refused("a key file for all", "encrypted:"+path, o, "chmod 600")
	o.KeyFile = mine
	plain := filepath.Join(dir, "plain.img")
	if err := os.WriteFile(plain, bytes.Repeat([]byte{9}, 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, create := range []bool{false, true} {
		o := o
		o.Create, o.Size = create, 0
		if create {
			o.Size = 1 << 20
		}
		refused("a file that is not one", "encrypted:"+plain, o, "no header of an encrypted store")
	}
	empty := filepath.Join(dir, "empty.img")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(empty, 2<<20); err != nil {
		t.Fatal(err)
	}
	refused("an empty file without create", "encrypted:"+empty, backing.Options{Group: g, KeyFile: mine}, "no header of an encrypted store")
	// As a crash leaves it while it is made.
	st = open(t, "encrypted:"+empty, backing.Options{Group: g, KeyFile: mine, Create: true, Size: 1 << 20})
	endAll(t, nil, st)

	// A second key: the file with both adds it, then it opens the store alone.
	st = open(t, "encrypted:"+path, backing.Options{Group: g, KeyFile: keyFile(t, "57")})
	endAll(t, nil, st)
	st = open(t, "encrypted:"+path, backing.Options{Group: g, KeyFile: keyFile(t, "7")})
	d = intentDriver(t, st, g)
	is := make([]byte, len(want))
	if err := d.Read(0, is); err != nil || !bytes.Equal(is, want) {
		t.Errorf("by the second key: %v", err)
	}
	// A new data key: what was written is gone, for the first key too, which has no
	// slot any more.
	if err := d.Do(&backing.Op{Kind: backing.Rekey}); err != nil {
		t.Fatal(err)
	}
	if err := d.Read(0, is); err != nil || bytes.Contains(is, want[:16]) {
		t.Errorf("after the change of the key: %v", err)
	}
	endAll(t, d, st)
	o.KeyFile = mine
	o.Create = false
	refused("the key without a slot", "encrypted:"+path, o, "no key of the key file opens it")
}

// TestRekeyKilled: killed at every step of a change of the key, torn, with any choice of
// what survives, the store opens with the old key or with the new one, and when the
// change was reported, with the new one alone.
func TestRekeyKilled(t *testing.T) {
	g := newGroup(t)
	rnd := rand.New(rand.NewPCG(3, 4))
	keys := backing.ParseKeys(t, strings.Repeat("5", 64))
	want := bytes.Repeat([]byte("plain text "), 512)[:4096]
	seen := map[string]int{}
	for skip := range 3 { // the two copies; none
		for _, torn := range []int64{0, 512, 1024, 2048, 3584, 4096} {
			for chance := range 4 {
				f := backingtest.NewFault(cached{open(t, "mem:", backing.Options{Size: 2 << 20, Group: g})})
				if err := f.Volatile(g.Loops()[0]); err != nil {
					t.Fatal(err)
				}
				st, err := backing.NewCrypt(keepOpen{f}, keys, g, true)
				if err != nil {
					t.Fatal(err)
				}
				d := intentDriver(t, st, g)
				if err := d.Write(0, want, backing.FUA); err != nil {
					t.Fatal(err)
				}
				f.Inject(backingtest.Rule{Kinds: backingtest.KindSet(backing.Write), Skip: skip, Torn: torn, Crash: f.Crash})
				err = d.Do(&backing.Op{Kind: backing.Rekey})
				changed := err == nil
				if changed != (skip == 2) {
					t.Errorf("skip %d: %v", skip, err)
				}
				endAll(t, d, st)
				f.Crash()
				f.Clear()
				if err := f.Restart(g.Loops()[0], func(int64) bool { return chance > 0 && rnd.IntN(chance) == 0 }); err != nil {
					t.Fatal(err)
				}
				if st, err = backing.NewCrypt(keepOpen{f}, keys, g, false); err != nil {
					t.Fatalf("copy %d, %d bytes of it written: %v", skip, torn, err)
				}
				d = intentDriver(t, st, g)
				is := make([]byte, len(want))
				if err := d.Read(0, is); err != nil {
					t.Fatal(err)
				}
				old := bytes.Equal(is, want)
				switch {
				case old && changed:
					t.Error("the old key is in force after the change was reported")
				case old:
					seen["old"]++
				default:
					seen["new"]++
				}
				// The change is complete: no copy of the header has the other key.
				head := make([]byte, 8192)
				endAll(t, d, st)
				d = intentDriver(t, f, g)
				if err := d.Read(0, head); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(head[:4096], head[4096:]) {
					t.Error("the copies of the header differ after the store was opened")
				}
				endAll(t, d, f)
			}
		}
	}
	if seen["old"] == 0 || seen["new"] == 0 {
		t.Errorf("outcomes %v: the test sees one of them only", seen)
	}
	t.Logf("outcomes: %v", seen)
}

// FuzzCryptHeader: whatever stands in a header, it is refused or comes back the same.
func FuzzCryptHeader(f *testing.F) {
	f.Add(backing.SampleHeader(1))
	f.Add(bytes.Repeat([]byte{0}, 4096))
	f.Add([]byte("VTGTCRYP"))
	f.Fuzz(func(t *testing.T, b []byte) { backing.DecodeHeader(t, b) })
}

// FuzzKeyFile: a key file is refused or gives keys.
func FuzzKeyFile(f *testing.F) {
	f.Add([]byte(strings.Repeat("a", 64)))
	f.Add([]byte("# x\n\n" + strings.Repeat("0", 64) + "\n" + strings.Repeat("F", 64)))
	f.Fuzz(func(t *testing.T, b []byte) { backing.ParseKeyFile(t, b) })
}
