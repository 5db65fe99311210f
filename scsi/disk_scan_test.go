package scsi

import (
	"bufio"
	"encoding/hex"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// absent are the operation codes in the scan lists that a disk here does not have
// yet. Initiators probe for them and live without.
var absent = map[byte]string{
	0x85: "ATA PASS-THROUGH(16)",
}

// What known initiators send to a new disk is answered with GOOD, or refused in the
// way that tells them that there is no such thing.
func TestScans(t *testing.T) {
	files, err := filepath.Glob("testdata/scan/*.txt")
	if err != nil || len(files) < 4 {
		t.Fatal("scan lists are missing", err)
	}
	for _, removable := range []bool{false, true} {
		for _, thin := range []bool{false, true} {
			for _, f := range files {
				c := goldenConf()
				c.Thin, c.Removable = thin, removable
				t.Run(filepath.Base(f), func(t *testing.T) { scan(t, f, newRig(t, c, newRigStore(1<<20)).nexus(), thin) })
			}
		}
	}
}

func scan(t *testing.T, file string, n *rigNexus, thin bool) {
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		line := s.Text()
		if line == "" || line[0] == '#' {
			continue
		}
		room, digits, _ := strings.Cut(line, " ")
		size, err := strconv.Atoi(room)
		if err != nil {
			t.Fatal(line)
		}
		cdb, err := hex.DecodeString(strings.ReplaceAll(digits, " ", ""))
		if err != nil || len(cdb) != cdbLen(cdb[0]) {
			t.Fatalf("%s: a CDB of %d bytes", line, len(cdb))
		}
		c := n.run(LUN{}, cdb, nil, [][]byte{make([]byte, size)})
		got := c.outcome()
		switch {
		case absent[cdb[0]] != "" || cdb[0] == 0x42 && !thin:
			if got != "05 20/00" {
				t.Errorf("%s: %s", line, got)
			}
		case cdb[0] == 0x12 && cdb[1] == 1 && !knownVPD(cdb[2]),
			(cdb[0] == 0x1a || cdb[0] == 0x5a) && cdb[3] != 0:
			if !strings.HasPrefix(got, "05 24/00") {
				t.Errorf("%s: %s", line, got)
			}
		default:
			if got != "good" {
				t.Errorf("%s: %s", line, got)
			}
			if size > 0 && cdb[0] != 0x42 && c.t.InLen == 0 {
				t.Errorf("%s: no data", line)
			}
		}
	}
}

func knownVPD(page byte) bool {
	return strings.IndexByte(string(appendVPDSupported(nil)[4:]), page) >= 0
}
