package guesttest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vtgt/vtgt/internal/guest/ledger"
	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/iscsi/iscsitest"
)

// A plain and an encrypted disk of 4096-byte blocks: a WRITE ATOMIC is 1 MiB long.
const mediaConfig = `disks:
  - {name: plain, store: "file:DIR/plain.img", create: true, size: 16MiB, blockSize: 4096}
  - {name: secret, store: "encrypted:DIR/secret.img", create: true, size: 16MiB, blockSize: 4096, keyFile: "DIR/key", sanitizeSpeed: SPEED}
targets:
  - {name: crash, luns: [{lun: 0, disk: plain}, {lun: 1, disk: secret}], iscsi: {iqn: "` + crashIQN + `"}}
`

const (
	mediaBlocks = 256
	mediaBytes  = mediaBlocks * 4096
	mediaLBA    = 77
)

// media runs one command; a status other than GOOD is an error with its sense data.
func media(c *iscsitest.Conn, lun uint16, cdb []byte, out []byte, in int) ([]byte, error) {
	r, err := c.Run(&iscsitest.Command{LUN: lun, CDB: cdb, Out: out, In: in})
	if err != nil {
		return nil, err
	}
	if r.Status != 0 {
		key, asc := iscsitest.Sense(r.Sense)
		return nil, fmt.Errorf("CDB % x: status %#x, sense %x %04x", cdb, r.Status, key, asc)
	}
	return r.In, nil
}

func mediaConnect(t *testing.T, h *host, isid byte) *iscsitest.Conn {
	t.Helper()
	c, err := connect(h.portal(), isid)
	if err != nil {
		t.Fatal(err)
	}
	for lun := range uint16(2) {
		if err := ledger.Clear(c, lun); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// TestMediaKilled kills vtgt with SIGKILL in the midst of WRITE ATOMICs of 1 MiB: each
// range holds all of one of them, no older one than the last that was answered. Then in
// the midst of SANITIZE, an overwrite and a cryptographic erase: the next vtgt goes on
// with them, and answers nothing else before their end.
func TestMediaKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("crashes take a while: not with -short")
	}
	rng, _ := random(t)
	h := newHost(t)
	if err := os.WriteFile(filepath.Join(h.dir, "key"), []byte(strings.Repeat("c3", 32)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	config := func(speed string) string { return h.config(strings.ReplaceAll(mediaConfig, "SPEED", speed)) }
	h.write(config("1KiB"))
	h.start()
	var acked [2]int
	for round := range rounds(t, "VTGT_KILL_ROUNDS", 3) {
		mediaWrites(t, h, rng, &acked)
		h.start()
		c := mediaConnect(t, h, 9)
		for lun := range uint16(2) {
			in, err := media(c, lun, []byte{0x88, 0, 0, 0, 0, 0, 0, 0, 0, mediaLBA, 0, 0, 1, 0, 0, 0}, nil, mediaBytes)
			if err != nil {
				t.Fatal(err)
			}
			if n := bytes.Count(in, in[:1]); n != mediaBytes {
				t.Errorf("round %d: LUN %d: the range is torn: %d bytes are %#x, as the first one", round, lun, n, in[0])
			}
			// Of 256 numbers the one that is there must be the last or the one after.
			if last := byte(acked[lun]); in[0] != last && in[0] != last+1 {
				t.Errorf("round %d: LUN %d: write %d (mod 256) was answered, %d is there", round, lun, last, in[0])
			}
			acked[lun] = int(in[0]) // the last one may have been under way
		}
		_ = c.Close()
	}

	// An overwrite that would take hours at its speed.
	c := mediaConnect(t, h, 9)
	list := append([]byte{1, 0, 0, 1}, 0x5a)
	if _, err := media(c, 1, []byte{0x48, 0x81, 0, 0, 0, 0, 0, 0, byte(len(list)), 0}, list, 0); err != nil {
		t.Fatal(err)
	}
	h.kill()
	h.start()
	busy := func(c *iscsitest.Conn) bool {
		_, err := media(c, 1, make([]byte, 6), nil, 0)
		return err != nil && strings.Contains(err.Error(), "sense 2 041b")
	}
	c = mediaConnectBusy(t, h)
	if !busy(c) {
		t.Error("the overwrite does not go on after the crash")
	}
	if _, err := media(c, 1, []byte{0x88, 0, 0, 0, 0, 0, 0, 0, 0, mediaLBA, 0, 0, 1, 0, 0, 0}, nil, mediaBytes); err == nil || !strings.Contains(err.Error(), "041b") {
		t.Errorf("a READ meanwhile: %v", err)
	}
	h.write(config("1TiB"))
	h.vtgt("apply", "-f", h.conf)
	tempotest.Wait(t, "the end of the overwrite", func() bool { return !busy(c) })
	in, err := media(c, 1, []byte{0x88, 0, 0, 0, 0, 0, 0, 0, 0, mediaLBA, 0, 0, 1, 0, 0, 0}, nil, mediaBytes)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Count(in, []byte{0x5a}) != mediaBytes {
		t.Errorf("after the overwrite the range begins with %#x", in[0])
	}
	_ = c.Close()

	// A cryptographic erase that is killed at any moment ends in an empty disk.
	c = mediaConnect(t, h, 9)
	go func() {
		time.Sleep(time.Duration(rng.IntN(30)) * time.Millisecond)
		h.kill()
	}()
	_, err = media(c, 1, []byte{0x48, 0x03, 0, 0, 0, 0, 0, 0, 0, 0}, nil, 0)
	t.Logf("the erase: %v", err)
	_ = c.Close()
	<-h.done
	h.start()
	c = mediaConnectBusy(t, h)
	defer c.Close()
	tempotest.Wait(t, "the end of the erase", func() bool { return !busy(c) })
	in, err = media(c, 1, []byte{0x88, 0, 0, 0, 0, 0, 0, 0, 0, mediaLBA, 0, 0, 1, 0, 0, 0}, nil, mediaBytes)
	if err != nil {
		t.Fatal(err)
	}
	// Where it was killed before its record was kept, nothing has happened.
	switch {
	case bytes.Count(in, []byte{0}) == mediaBytes:
	case bytes.Count(in, []byte{0x5a}) == mediaBytes:
		t.Log("killed before it began")
	default:
		t.Errorf("after the erase the range begins with % x", in[:8])
	}
}

// mediaConnectBusy logs in while a unit may be busy: unit attentions go first.
func mediaConnectBusy(t *testing.T, h *host) *iscsitest.Conn {
	t.Helper()
	c, err := connect(h.portal(), 9)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for lun := range uint16(2) {
			if _, err := media(c, lun, make([]byte, 6), nil, 0); err != nil && !strings.Contains(err.Error(), "sense 6") && !strings.Contains(err.Error(), "041b") {
				t.Fatal(err)
			}
		}
	}
	return c
}

// mediaWrites writes to both disks until vtgt is killed under them. acked are the numbers
// of the last writes that were answered.
func mediaWrites(t *testing.T, h *host, rng *rand.Rand, acked *[2]int) {
	t.Helper()
	begun, ended := make(chan int, 1000), make(chan int, 2)
	for lun := range uint16(2) {
		c := mediaConnect(t, h, byte(10+lun))
		first := acked[lun] + 1
		go func() {
			defer func() { _ = c.Close(); ended <- int(lun) }()
			for n := first; ; n++ {
				out := bytes.Repeat([]byte{byte(n)}, mediaBytes)
				if _, err := media(c, lun, []byte{0x9c, 0, 0, 0, 0, 0, 0, 0, 0, mediaLBA, 0, 0, 1, 0, 0, 0}, out, 0); err != nil {
					if strings.Contains(err.Error(), "CDB") {
						t.Error(err)
					}
					return
				}
				acked[lun] = n
				select {
				case begun <- 1:
				default:
				}
			}
		}()
	}
	for range 6 {
		tempotest.Recv(t, begun, "an answer to WRITE ATOMIC")
	}
	time.Sleep(time.Duration(rng.IntN(40)) * time.Millisecond)
	h.kill()
	for range 2 {
		tempotest.Recv(t, ended, "the end of a writer")
	}
}
