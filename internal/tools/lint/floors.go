package main

import (
	"path"
	"strings"
)

// A floor is a package tree and what it may stand on: its own tree always, and the
// trees of down; "=x" is the package x without those below it. The relation is stated
// per floor, from the bottom up, so that "sideways" needs no rule of its own.
type floor struct {
	dir  string
	down []string
}

var floors = []floor{
	{"internal", nil},
	{"backing", []string{"internal"}},
	{"scsi", []string{"internal", "backing"}},
	{"srp", []string{"internal", "backing", "scsi"}},
	{"iscsi", []string{"internal", "backing", "scsi"}},
	{"vhost", []string{"internal", "backing", "scsi", "srp"}},
	{"xen", []string{"internal", "backing", "scsi", "srp"}},
	{"ibmvio", []string{"internal", "backing", "scsi", "srp"}},
	{"config", []string{"internal", "backing", "scsi"}},
	{"daemon", []string{"internal", "backing", "scsi", "srp", "iscsi", "vhost", "xen", "ibmvio", "config"}},
	{"api", []string{"internal", "backing", "scsi", "srp", "iscsi", "vhost", "xen", "ibmvio", "config", "daemon"}},
	{"attach/libvirt", []string{"internal", "config", "api", "=attach"}},
	{"attach/vsphere", []string{"internal", "config", "api", "=attach"}},
	{"attach/xen", []string{"internal", "config", "api", "xen", "=attach"}},
	{"attach", []string{"internal", "config", "api"}},
	{"cmd", []string{"internal", "backing", "scsi", "srp", "iscsi", "vhost", "xen", "ibmvio", "config", "daemon", "api", "attach"}},
}

// codecs decode and encode only: what they import may not reach a descriptor.
var codecs = []string{"iscsi/pdu", "iscsi/login", "iscsi/chap", "srp/iu", "vhost/proto", "vhost/virtioscsi", "vhost/vring", "xen/vscsiif", "xen/journal", "xen/xenstore/wire", "ibmvio/crq", "ibmvio/wire"}

// closed are the packages that codecs and the command core keep out of.
var closed = []string{"net", "os", "os/exec", "syscall", "internal/sys", "internal/loop", "internal/uring"}

func below(dir, root string) bool { return dir == root || strings.HasPrefix(dir, root+"/") }

func floorOf(dir string) *floor {
	for i := range floors {
		if below(dir, floors[i].dir) {
			return &floors[i]
		}
	}
	return nil
}

// isTestSupport tells packages that exist for tests (scsitest, backingtest, guest, ...).
func isTestSupport(dir string) bool {
	return strings.HasSuffix(path.Base(dir), "test") || below(dir, "internal/guest") || below(dir, "internal/tools")
}

// checkFloors: imports only go down, never sideways between front ends; codecs do no
// I/O; nothing that ships stands on test support. Tests may look up (they drive a
// package through its users), except that nothing imports a command.
func checkFloors(t *tree) {
	for _, f := range t.files {
		if f.dir == "." || below(f.dir, "internal/tools") {
			continue
		}
		fl := floorOf(f.dir)
		if fl == nil {
			t.report(f.path, 0, "floors", "package %s is on no floor: give it one in internal/tools/lint/floors.go", f.dir)
			continue
		}
		support := f.test || isTestSupport(f.dir)
		t.imports(f, func(own, whole string, line int) {
			if !f.test {
				checkCodec(t, f, own, whole, line)
				if whole == "testing" && !support {
					t.report(f.path, line, "floors", "%s imports testing outside tests and *test packages", f.dir)
				}
			}
			if own == "" {
				return
			}
			if below(own, "internal/tools") {
				t.report(f.path, line, "floors", "%s imports %s: nothing stands on the tools", f.dir, own)
				return
			}
			if !support && isTestSupport(own) {
				t.report(f.path, line, "floors", "%s imports %s, which is for tests only", f.dir, own)
				return
			}
			if support && !below(own, "cmd") {
				return
			}
			if below(own, fl.dir) {
				return
			}
			for _, d := range fl.down {
				if exact, ok := strings.CutPrefix(d, "="); own == exact && ok || !ok && below(own, d) {
					return
				}
			}
			t.report(f.path, line, "floors", "%s may not import %s: imports go down the floors of DESIGN.md only (%s stands on: %s)",
				f.dir, own, fl.dir, strings.Join(append([]string{"itself"}, fl.down...), ", "))
		})
	}
}

func checkCodec(t *tree, f *file, own, whole string, line int) {
	for _, c := range codecs {
		if !below(f.dir, c) || isTestSupport(f.dir) {
			continue
		}
		for _, x := range closed {
			if whole == x || own == x {
				t.report(f.path, line, "floors", "%s is a codec without I/O and may not import %s", f.dir, whole)
			}
		}
	}
}

// checkUnsafe: package unsafe in *_unsafe.go only, x/sys/unix below internal/ only.
func checkUnsafe(t *tree) {
	for _, f := range t.files {
		base := strings.TrimSuffix(strings.TrimSuffix(path.Base(f.path), ".go"), "_test")
		for _, os := range []string{"_linux", "_amd64", "_arm64"} {
			base = strings.TrimSuffix(base, os)
		}
		t.imports(f, func(_, whole string, line int) {
			if whole == "unsafe" && !strings.HasSuffix(base, "_unsafe") {
				t.report(f.path, line, "unsafe", "unsafe belongs in a file named *_unsafe.go")
			}
			if whole == "golang.org/x/sys/unix" && !below(f.dir, "internal") {
				t.report(f.path, line, "unix", "x/sys/unix is imported below internal/ only: go through internal/sys")
			}
		})
	}
}
