package vsphere

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vtgt/vtgt/attach/vsphere/vspheretest"
	"github.com/vtgt/vtgt/internal/hosttest"
)

func TestConnect(t *testing.T) {
	lab, err := vspheretest.New(vspheretest.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(lab.Close)
	dir := t.TempDir()
	file := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	stranger := file("stranger.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	other := strings.Repeat("AB:", 31) + "AB"

	for name, c := range map[string]struct {
		change func(*Login)
		words  []string // none: it works
	}{
		"thumbprint":            {func(l *Login) {}, nil},
		"thumbprint, lower":     {func(l *Login) { l.Thumbprint = strings.ToLower(strings.ReplaceAll(l.Thumbprint, ":", "")) }, nil},
		"authority":             {func(l *Login) { l.Thumbprint, l.CACert = "", lab.CA }, nil},
		"system's authorities":  {func(l *Login) { l.Thumbprint = "" }, []string{"certificate is not trusted", "--thumbprint " + lab.Thumbprint, "--cacert"}},
		"other thumbprint":      {func(l *Login) { l.Thumbprint = other }, []string{"its thumbprint is another one", lab.Thumbprint}},
		"other, though trusted": {func(l *Login) { l.Thumbprint, l.CACert = other, lab.CA }, []string{"its thumbprint is another one"}},
		"stranger's authority":  {func(l *Login) { l.Thumbprint, l.CACert = "", stranger }, []string{"certificate is not trusted", lab.Thumbprint}},
		"no thumbprint":         {func(l *Login) { l.Thumbprint = "xyz" }, []string{"xyz", "64 hexadecimal digits"}},
		"no such file":          {func(l *Login) { l.CACert = filepath.Join(dir, "none") }, []string{"cannot be read"}},
		"no PEM":                {func(l *Login) { l.CACert = file("text", "text") }, []string{"holds no certificate"}},
		"wrong password":        {func(l *Login) { l.Password = "wrong-one" }, []string{"user " + vspheretest.User + " is refused"}},
		"clear text":            {func(l *Login) { l.URL = strings.Replace(l.URL, "https", "http", 1) }, []string{"use https"}},
		"password in the URL":   {func(l *Login) { l.URL = strings.Replace(l.URL, "https://", "https://u:wrong-one@", 1) }, []string{"the URL holds a password"}},
		"nobody there":          {func(l *Login) { l.URL = "127.0.0.1:1" }, []string{"no answer"}},
		"no URL":                {func(l *Login) { l.URL = "https://%zz" }, []string{"is no URL"}},
	} {
		l := Login{URL: lab.URL, User: vspheretest.User, Password: vspheretest.Password, Thumbprint: lab.Thumbprint}
		c.change(&l)
		s, err := Connect(t.Context(), l)
		switch {
		case err == nil && c.words == nil:
			s.Close(t.Context())
			continue
		case err == nil:
			t.Errorf("%s: connected", name)
			s.Close(t.Context())
			continue
		case c.words == nil:
			t.Errorf("%s: %v", name, err)
		}
		for _, w := range c.words {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %q does not say %q", name, err, w)
			}
		}
		if strings.Contains(err.Error(), vspheretest.Password) || strings.Contains(err.Error(), "wrong-one") {
			t.Errorf("%s: the error tells the password: %v", name, err)
		}
	}
}

func TestEnvironment(t *testing.T) {
	dir := hosttest.Dir(t)
	good, open, bad := filepath.Join(dir, "good"), filepath.Join(dir, "open"), filepath.Join(dir, "bad")
	for p, x := range map[string]struct {
		text string
		mode os.FileMode
	}{good: {"file-user:file:pass\n", 0o600}, open: {"u:p", 0o644}, bad: {"nothing", 0o600}} {
		if err := os.WriteFile(p, []byte(x.text), x.mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(p, x.mode); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		url, file string
		env       map[string]string
		want      string // URL, user, password; or the error's words
	}{
		"ours":          {"", "", map[string]string{"VTGT_VSPHERE_URL": "vc", "VTGT_VSPHERE_USER": "a", "VTGT_VSPHERE_PASSWORD": "b", "GOVC_USERNAME": "x", "GOVC_PASSWORD": "y"}, "vc a b"},
		"govc":          {"vc", "", map[string]string{"GOVC_USERNAME": "x", "GOVC_PASSWORD": "y"}, "vc x y"},
		"govc's URL":    {"", "", map[string]string{"GOVC_URL": "https://x:y@vc/sdk"}, "https://vc/sdk x y"},
		"file":          {"vc", good, map[string]string{"GOVC_USERNAME": "x", "GOVC_PASSWORD": "y"}, "vc file-user file:pass"},
		"open file":     {"vc", open, nil, "has mode 0644"},
		"bad file":      {"vc", bad, nil, "USER:PASSWORD"},
		"no file":       {"vc", filepath.Join(dir, "none"), nil, "cannot be opened"},
		"nothing":       {"vc", "", nil, "VTGT_VSPHERE_PASSWORD"},
		"no URL":        {"", "", map[string]string{"VTGT_VSPHERE_USER": "a", "VTGT_VSPHERE_PASSWORD": "b"}, "--url"},
		"half ours":     {"vc", "", map[string]string{"VTGT_VSPHERE_USER": "a", "GOVC_USERNAME": "x", "GOVC_PASSWORD": "y"}, "vc x y"},
		"user, no pass": {"vc", "", map[string]string{"GOVC_URL": "https://x@vc/sdk"}, "VTGT_VSPHERE_USER"},
	} {
		l, err := Environment(Login{URL: c.url}, c.file, func(k string) string { return c.env[k] })
		got := l.URL + " " + l.User + " " + l.Password
		if err != nil {
			got = err.Error()
		}
		if err == nil && got != c.want || err != nil && !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
