package libvirt

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	lv "github.com/digitalocean/go-libvirt"
	lx "libvirt.org/go/libvirtxml"
)

// account is the user that a domain's QEMU runs as.
type account struct {
	uid    int
	groups []int
}

func (a account) String() string {
	s := "user " + strconv.Itoa(a.uid)
	if u, err := user.LookupId(strconv.Itoa(a.uid)); err == nil {
		s = "user " + u.Username
	}
	return s
}

// accountOf finds the account of a domain's QEMU: that of its process where it runs on
// this host, else what libvirt would start it as. ok is false where that cannot be told.
func (d *domain) accountOf(ctx context.Context, caps *capabilities) (a account, ok bool) {
	if !d.c.local {
		return a, false
	}
	if d.running {
		if a, ok = processAccount(d.uuid); ok {
			return a, true
		}
	}
	uid := d.c.peer() // of a session
	if caps.uid >= 0 {
		uid = caps.uid
	}
	if uid < 0 {
		return a, false
	}
	a = account{uid: uid}
	if caps.uid >= 0 {
		a.groups = append(a.groups, caps.gid)
	}
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		ids, _ := u.GroupIds()
		for _, s := range append(ids, u.Gid) {
			if n, err := strconv.Atoi(s); err == nil && !slices.Contains(a.groups, n) {
				a.groups = append(a.groups, n)
			}
		}
	}
	return a, true
}

// processAccount finds the QEMU of a domain by its UUID among the processes.
func processAccount(uuid string) (a account, ok bool) {
	es, _ := os.ReadDir("/proc")
	for _, e := range es {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		b, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err != nil || !bytes.Contains(b, []byte("\x00-uuid\x00"+uuid+"\x00")) {
			continue
		}
		b, err = os.ReadFile(filepath.Join("/proc", e.Name(), "status"))
		if err != nil {
			continue
		}
		return parseStatus(string(b))
	}
	return a, false
}

// parseStatus reads the effective ids from /proc/PID/status.
func parseStatus(text string) (a account, ok bool) {
	for _, line := range strings.Split(text, "\n") {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "Uid:", "Gid:":
			if len(f) < 3 {
				return a, false
			}
			n, err := strconv.Atoi(f[2])
			if err != nil {
				return a, false
			}
			if f[0] == "Uid:" {
				a.uid, ok = n, true
			} else {
				a.groups = append(a.groups, n)
			}
		case "Groups:":
			for _, s := range f[1:] {
				if n, err := strconv.Atoi(s); err == nil {
					a.groups = append(a.groups, n)
				}
			}
		}
	}
	return a, ok
}

// may tells whether the account has a permission (4 read, 2 write, 1 search) by owner,
// group and mode of a file.
func (a account) may(fi fs.FileInfo, want fs.FileMode) bool {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok || a.uid == 0 {
		return true
	}
	m := fi.Mode().Perm()
	switch {
	case int(st.Uid) == a.uid:
		m >>= 6
	case slices.Contains(a.groups, int(st.Gid)):
		m >>= 3
	}
	return m&want == want
}

// reach tells what keeps the account from connecting to the socket at path; "" if
// nothing does. Access control lists are not looked at.
func (a account) reach(path string) (why string, err error) {
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		fi, err := os.Stat(dir)
		if err != nil {
			return "", err
		}
		if !a.may(fi, 1) {
			why = fmt.Sprintf("may not enter the folder %s (%s)", dir, describe(fi))
		}
		if dir == "/" {
			break
		}
	}
	if why != "" {
		return why, nil
	}
	fi, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !a.may(fi, 2) {
		return fmt.Sprintf("may not write to %s (%s)", path, describe(fi)), nil
	}
	return "", nil
}

// describe is owner, group and mode for people.
func describe(fi fs.FileInfo) string {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return fi.Mode().String()
	}
	owner, group := strconv.Itoa(int(st.Uid)), strconv.Itoa(int(st.Gid))
	if u, err := user.LookupId(owner); err == nil {
		owner = u.Username
	}
	if g, err := user.LookupGroupId(group); err == nil {
		group = g.Name
	}
	return fmt.Sprintf("%s:%s, mode %04o", owner, group, fi.Mode().Perm())
}

// capabilities are what libvirt says of its host.
type capabilities struct {
	uid, gid int // of QEMU, -1 where libvirt does not change them
	// apparmor and selinux confine QEMU.
	apparmor, selinux bool
}

func (c *conn) capabilities(ctx context.Context) (*capabilities, error) {
	var text []byte
	err := c.do(ctx, "libvirt", func(l *lv.Libvirt) (err error) {
		text, err = l.Capabilities()
		return err
	})
	if err != nil {
		return nil, err
	}
	return parseCapabilities(string(text))
}

func parseCapabilities(text string) (*capabilities, error) {
	var x lx.Caps
	if err := x.Unmarshal(text); err != nil {
		return nil, fmt.Errorf("libvirt's capabilities are not understood: %w", err)
	}
	out := &capabilities{uid: -1, gid: -1}
	for _, m := range x.Host.SecModel {
		switch m.Name {
		case "apparmor":
			out.apparmor = true
		case "selinux":
			out.selinux = true
		case "dac":
			for _, l := range m.Labels {
				u, g, ok := strings.Cut(strings.ReplaceAll(l.Value, "+", ""), ":")
				uid, uerr := strconv.Atoi(u)
				gid, gerr := strconv.Atoi(g)
				if ok && uerr == nil && gerr == nil && (l.Type == "kvm" || out.uid < 0) {
					out.uid, out.gid = uid, gid
				}
			}
		}
	}
	return out, nil
}
