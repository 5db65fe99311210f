package backing_test

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/backing/backingtest"
	"github.com/vtgt/vtgt/internal/loop"
)

// loopDevice makes a loop device of 8 MiB with blocks of lbs bytes.
func loopDevice(t *testing.T, lbs string) string {
	t.Helper()
	img := sparse(t, filepath.Join(t.TempDir(), "img"), 8<<20)
	out, err := exec.Command("losetup", "--find", "--show", "--sector-size", lbs, img).CombinedOutput()
	if err != nil {
		t.Skipf("cannot make a loop device (root and losetup are needed): %v %s", err, out)
	}
	dev := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", dev).CombinedOutput(); err != nil {
			t.Errorf("losetup --detach %s: %v %s", dev, err, out)
		}
	})
	return dev
}

func TestBlock(t *testing.T) {
	for _, c := range []struct {
		name, lbs string
		cache     backing.Cache
	}{
		{"direct 512", "512", backing.Direct}, {"direct 4096", "4096", backing.Direct},
		{"writeback 512", "512", backing.Writeback}, {"writethrough 4096", "4096", backing.Writethrough},
	} {
		t.Run(c.name, func(t *testing.T) {
			loopDevice(t, c.lbs) // skips here, once
			backingtest.Run(t, backingtest.Config{Open: func(t *testing.T, g *loop.Group) backing.Store {
				return open(t, "block:"+loopDevice(t, c.lbs), backing.Options{Cache: c.cache, Group: g})
			}})
		})
	}
}

func TestBlockInUse(t *testing.T) {
	dev := loopDevice(t, "4096")
	g := group(t)
	st := open(t, "block:"+dev, backing.Options{Group: g})
	if i := st.Info(); i.Size != 8<<20 || i.PhysicalBlock < 4096 {
		t.Errorf("Info is %+v", *i)
	}
	_, err := backing.Open("block:"+dev, backing.Options{Group: g})
	if !errors.Is(err, backing.ErrInUse) || !strings.Contains(err.Error(), "the device is in use") {
		t.Errorf("a second writer of the device: %v, want ErrInUse", err)
	}
	if err := st.Resize(4 << 20); !errors.Is(err, backing.ErrNotSupported) {
		t.Errorf("Resize of a device: %v", err)
	}
	if err := st.Reopen(); err != nil { // its own claim is no obstacle
		t.Errorf("Reopen: %v", err)
	}
	_, err = backing.Open("file:"+dev, backing.Options{Group: g})
	if err == nil || !strings.Contains(err.Error(), "write block:"+dev) {
		t.Errorf("a device as file: %v", err)
	}
	_, err = backing.Open("block:"+dev, backing.Options{Group: g, Size: 1 << 30, ReadOnly: true})
	if err == nil {
		t.Error("opened beside a writer")
	}
	closeAll(t, st)
	_, err = backing.Open("block:"+dev, backing.Options{Group: g, Size: 1 << 30})
	if err == nil || !strings.Contains(err.Error(), "less than the configured") {
		t.Errorf("a short device: %v", err)
	}
}
