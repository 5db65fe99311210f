package secret

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/vtgt/vtgt/internal/hosttest"
)

func TestRead(t *testing.T) {
	dir := hosttest.Dir(t)
	file := func(name, text string, mode os.FileMode) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(p, mode); err != nil {
			t.Fatal(err)
		}
		return p
	}
	for _, c := range []struct{ text, want string }{
		{"secretsecret", "secretsecret"}, {"secretsecret\n", "secretsecret"}, {"secretsecret\r\n", "secretsecret"},
		{" with blanks \n", " with blanks "}, {strings.Repeat("x", 255) + "\n", strings.Repeat("x", 255)},
	} {
		got, err := Read(file("good", c.text, 0o600))
		if err != nil || string(got) != c.want {
			t.Errorf("%q: %q, %v", c.text, got, err)
		}
	}
	if _, err := Read(file("ro", "secretsecret", 0o400)); err != nil {
		t.Error(err)
	}

	link := filepath.Join(dir, "link")
	if err := os.Symlink("good", link); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(link); err != nil {
		t.Error("our own link:", err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(dir, "open")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(open, "s"), []byte("secretsecret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	type bad struct{ path, want string }
	bads := []bad{
		{"relative", "absolute"}, {filepath.Join(dir, "none"), "no such file"}, {dir, "no regular file"}, {fifo, "no regular file"},
		{file("group", "topsecretvalue", 0o640), "0640"}, {file("world", "topsecretvalue", 0o604), "0604"}, {file("exec", "topsecretvalue", 0o700), "0700"},
		{file("empty", "", 0o600), "empty"}, {file("line", "\n", 0o600), "empty"},
		{file("long", strings.Repeat("x", 256), 0o600), "255"}, {file("huge", strings.Repeat("x", 1<<20), 0o600), "255"},
		{file("lines", "topsecretvalue\nmore\n", 0o600), "one line"}, {file("zero", "a\x00b", 0o600), "one line"},
		{filepath.Join(open, "s"), "everybody may write"},
	}
	if os.Geteuid() == 0 {
		other := file("other", "topsecretvalue", 0o600)
		planted := filepath.Join(dir, "planted")
		if err := os.Symlink("good", planted); err != nil {
			t.Fatal(err)
		}
		switch err := errors.Join(os.Chown(other, 12345, 0), os.Lchown(planted, 12345, 0)); {
		case err == nil:
			bads = append(bads, bad{other, "another user"}, bad{planted, "symbolic link"})
		case errors.Is(err, os.ErrPermission):
			t.Log("files of other users are not tried: this root has no CAP_CHOWN")
		default:
			t.Fatal(err)
		}
	}
	for _, c := range bads {
		_, err := Read(c.path)
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), c.want) || e.Hint == "" || strings.Contains(err.Error(), "topsecretvalue") {
			t.Errorf("%s: %v, want %q", c.path, err, c.want)
		}
	}
}
