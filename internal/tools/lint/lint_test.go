package main

import (
	"slices"
	"testing"
)

// TestRepository holds this very module to the rules.
func TestRepository(t *testing.T) {
	findings, err := Check("../../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range findings {
		t.Error(f)
	}
}

func TestGoodTree(t *testing.T) {
	findings, err := Check("testdata/good")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range findings {
		t.Error(f)
	}
}

// TestBadTree shows that each rule fails where it must, and nowhere else.
func TestBadTree(t *testing.T) {
	findings, err := Check("testdata/bad")
	if err != nil {
		t.Fatal(err)
	}
	type place struct {
		path string
		line int
		rule string
	}
	want := []place{
		{"NOTES.md", 1, "leftovers"},
		{"NOTES.md", 2, "leftovers"},
		{"attach/libvirt/side.go", 5, "floors"}, // sideways
		{"backing/up.go", 3, "floors"},          // up
		{"cmd/vtgt/doc.go", 0, "doc"},           // a command begins "Command vtgt"
		{"config/globals.go", 12, "globals"},    // a lock
		{"config/globals.go", 13, "globals"},    // an atomic
		{"config/globals.go", 14, "globals"},    // a channel
		{"config/globals.go", 15, "globals"},    // assigned
		{"config/globals.go", 16, "globals"},    // incremented
		{"config/globals.go", 17, "globals"},    // an element assigned
		{"config/globals.go", 18, "globals"},    // its address taken
		{"config/globals.go", 19, "globals"},    // delete
		{"config/globals.go", 20, "globals"},    // assigned by another package
		{"daemon/exit.go", 5, "exits"},
		{"daemon/raw.go", 3, "unix"},
		{"ibmvio/format.go", 0, "gofmt"},
		{"internal/sys/mem.go", 3, "unsafe"},
		{"iscsi/pdu/io.go", 3, "floors"}, // a codec with I/O
		{"iscsi/side.go", 3, "floors"},   // sideways
		{"scsi/support.go", 4, "floors"}, // testing
		{"scsi/support.go", 6, "floors"}, // test support
		{"srp", 0, "doc"},                // none
		{"stray/doc.go", 0, "floors"},    // on no floor
		{"vhost/tools.go", 3, "floors"},  // the tools
		{"xen/doc.go", 0, "doc"},         // begins otherwise
		{"xen/two.go", 1, "doc"},         // twice
	}
	var got []place
	for _, f := range findings {
		got = append(got, place{f.Path, f.Line, f.Rule})
	}
	for _, w := range want {
		if !slices.Contains(got, w) {
			t.Errorf("not found: %v", w)
		}
	}
	for i, g := range got {
		if !slices.Contains(want, g) {
			t.Errorf("unexpected: %v", findings[i])
		}
	}
}
