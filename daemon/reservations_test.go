package daemon

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/vtgt/vtgt/config"
	"github.com/vtgt/vtgt/daemon/state"
	"github.com/vtgt/vtgt/scsi"
)

// The reservations of a disk lie where reservations: says, everything else does not.
func TestReservationsPath(t *testing.T) {
	dir := t.TempDir()
	st, err := state.Open(filepath.Join(dir, "state"), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	c := &core{memory: func(disk string) scsi.Memory { return st.Memory(disk) }}
	d := &config.Disk{Name: "a"}
	path := filepath.Join(dir, "a.res")
	for _, moved := range []bool{false, true} {
		if moved {
			d.Reservations = path
		}
		m := c.memoryOf(d)
		for _, record := range []string{scsi.ReservationsRecord, "mode"} {
			if b, err := m.Load(record); moved && record == scsi.ReservationsRecord && (b != nil || err != nil) {
				t.Errorf("%q %v", b, err)
			}
			want := record + map[bool]string{false: " here", true: " there"}[moved]
			if err := m.Save(record, []byte(want)); err != nil {
				t.Fatal(err)
			}
			if b, err := m.Load(record); err != nil || string(b) != want+"\n" {
				t.Errorf("%q %v", b, err)
			}
		}
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != scsi.ReservationsRecord+" there\n" {
		t.Errorf("%q %v", b, err)
	}
	if b, err := st.Memory("a").Load(scsi.ReservationsRecord); err != nil || string(b) != scsi.ReservationsRecord+" here\n" {
		t.Errorf("%q %v", b, err)
	}
}
