package vsphere

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/vmware/govmomi/session"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/vtgt/vtgt/internal/secret"
)

// Login says where the API is and who asks.
type Login struct {
	// URL is that of a vCenter server or an ESXi host: a name, or https://NAME/sdk.
	// It must hold no password.
	URL            string
	User, Password string
	// Thumbprint is the only certificate to accept, its SHA-256 (or SHA-1) in
	// hexadecimal digits with or without colons. CACert is a PEM file of the
	// authorities to trust. With neither the system's are.
	Thumbprint, CACert string
	// Program is what the server shows as the session's client.
	Program string
}

// Environment completes l. Where it has no URL: VTGT_VSPHERE_URL, else govc's GOVC_URL.
// The user and the password come from file where that is named, a line USER:PASSWORD in
// a file that nobody else may read; else from VTGT_VSPHERE_USER and
// VTGT_VSPHERE_PASSWORD, or govc's GOVC_USERNAME and GOVC_PASSWORD, or GOVC_URL.
func Environment(l Login, file string, getenv func(string) string) (Login, error) {
	govc, err := soap.ParseURL(getenv("GOVC_URL"))
	if err != nil || govc == nil {
		govc = &url.URL{}
	}
	if l.URL == "" {
		l.URL = getenv("VTGT_VSPHERE_URL")
	}
	if l.URL == "" && govc.Host != "" {
		u := *govc
		u.User = nil
		l.URL = u.String()
	}
	if l.URL == "" {
		return l, fail("--url", "name the vCenter server or the ESXi host with --url, or in VTGT_VSPHERE_URL", "there is none")
	}
	if file != "" {
		l.User, l.Password, err = credentialsFile(file)
		return l, err
	}
	for _, e := range [][2]string{{"VTGT_VSPHERE_USER", "VTGT_VSPHERE_PASSWORD"}, {"GOVC_USERNAME", "GOVC_PASSWORD"}} {
		if u, p := getenv(e[0]), getenv(e[1]); u != "" && p != "" {
			l.User, l.Password = u, p
			return l, nil
		}
	}
	if govc.User != nil {
		if p, ok := govc.User.Password(); ok && p != "" && govc.User.Username() != "" {
			l.User, l.Password = govc.User.Username(), p
			return l, nil
		}
	}
	return l, fail("credentials", "set VTGT_VSPHERE_USER and VTGT_VSPHERE_PASSWORD (or GOVC_USERNAME and GOVC_PASSWORD), or name a file of mode 0600 that holds USER:PASSWORD with --credentials", "there are none")
}

func credentialsFile(file string) (user, password string, err error) {
	path, err := filepath.Abs(file)
	if err != nil {
		return "", "", err
	}
	b, err := secret.Read(path)
	if err != nil {
		var se *secret.Error
		if errors.As(err, &se) {
			return "", "", fail("credentials file "+file, se.Hint, "%s", se.Problem)
		}
		return "", "", err
	}
	user, password, ok := strings.Cut(string(b), ":")
	if !ok || user == "" || password == "" {
		return "", "", fail("credentials file "+file, "write one line into it: USER:PASSWORD", "has no user and password")
	}
	return user, password, nil
}

// Session is a user logged in.
type Session struct {
	c  *vim25.Client
	sm *session.Manager
	// name is the server, for messages.
	name string
}

// certError is a certificate that is not to be trusted.
type certError struct {
	thumbprint string
	err        error
}

func (e *certError) Error() string { return e.err.Error() }
func (e *certError) Unwrap() error { return e.err }

// colons writes a thumbprint as vSphere does.
func colons(b []byte) string {
	s := strings.ToUpper(hex.EncodeToString(b))
	var parts []string
	for i := 0; i < len(s); i += 2 {
		parts = append(parts, s[i:i+2])
	}
	return strings.Join(parts, ":")
}

// tlsConfig trusts what l says and nothing else: a thumbprint is the whole check where
// there is one.
func tlsConfig(l *Login, host string) (*tls.Config, error) {
	var want []byte
	if l.Thumbprint != "" {
		b, err := hex.DecodeString(strings.NewReplacer(":", "", " ", "").Replace(l.Thumbprint))
		if err != nil || len(b) != sha256.Size && len(b) != sha1.Size {
			return nil, fail("thumbprint", "take it from the host's console, or: openssl x509 -in CERT -noout -fingerprint -sha256", "%q is none: it has 64 hexadecimal digits (SHA-256)", l.Thumbprint)
		}
		want = b
	}
	var roots *x509.CertPool
	if l.CACert != "" {
		pem, err := os.ReadFile(l.CACert)
		if err != nil {
			return nil, fail("CA file "+l.CACert, "give the path of a PEM file", "cannot be read: %v", errors.Unwrap(err))
		}
		roots = x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return nil, fail("CA file "+l.CACert, "vCenter offers its own at https://"+host+"/certs/download.zip", "holds no certificate in PEM format")
		}
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		ServerName: host,
		// VerifyConnection does it, so that an error can say what was there.
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			leaf := cs.PeerCertificates[0]
			s256 := sha256.Sum256(leaf.Raw)
			if want != nil {
				s1 := sha1.Sum(leaf.Raw)
				if subtle.ConstantTimeCompare(want, s256[:]) == 1 || subtle.ConstantTimeCompare(want, s1[:]) == 1 {
					return nil
				}
				return &certError{colons(s256[:]), errors.New("its thumbprint is another one")}
			}
			inter := x509.NewCertPool()
			for _, c := range cs.PeerCertificates[1:] {
				inter.AddCert(c)
			}
			if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: inter, DNSName: host}); err != nil {
				return &certError{colons(s256[:]), err}
			}
			return nil
		},
	}, nil
}

// Connect logs in.
func Connect(ctx context.Context, l Login) (*Session, error) {
	u, err := soap.ParseURL(l.URL)
	if err != nil || u == nil || u.Host == "" {
		return nil, fail("--url", "give the name of a vCenter server or an ESXi host, or https://NAME/sdk", "%q is no URL", redact(l.URL))
	}
	object := "vSphere at " + u.Host
	if _, ok := u.User.Password(); ok && u.User.String() != ":" {
		return nil, fail(object, "leave it out, and change it: others may have seen it in the list of processes", "the URL holds a password")
	}
	if u.Scheme != "https" {
		return nil, fail(object, "use https", "the password would go over the network in clear by %s", u.Scheme)
	}
	u.User = nil
	tc, err := tlsConfig(&l, u.Hostname())
	if err != nil {
		return nil, err
	}
	sc := soap.NewClient(u, false)
	t := sc.DefaultTransport()
	t.TLSClientConfig, t.DialTLSContext = tc, nil
	if l.Program != "" {
		sc.UserAgent = l.Program
	}
	s := &Session{name: u.Host}
	if s.c, err = vim25.NewClient(ctx, sc); err != nil {
		sc.CloseIdleConnections()
		var ce *certError
		if errors.As(err, &ce) {
			hint := "if that is the thumbprint that the host's own console shows, add --thumbprint " + ce.thumbprint + "; or name the authority's certificate by --cacert"
			if l.Thumbprint != "" {
				hint = "it is " + ce.thumbprint + ": compare that with what the host's own console shows before you believe it"
			}
			return nil, &Error{Object: object, Message: "its certificate is not trusted: " + ce.Error(), Hint: hint, Err: ce}
		}
		return nil, because(object, "no answer", "look at the name, the port and the firewalls in between", rootCause(err))
	}
	s.sm = session.NewManager(s.c)
	if err := s.sm.Login(ctx, url.UserPassword(l.User, l.Password)); err != nil {
		sc.CloseIdleConnections()
		if is[types.InvalidLogin](err) {
			return nil, fail(object, "look at the user's name (with its domain, such as administrator@vsphere.local) and the password", "user %s is refused", l.User)
		}
		return nil, because(object, "login", "look whether the user may log in", err)
	}
	return s, nil
}

// rootCause leaves out the URL, which net/http puts in front.
func rootCause(err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		return ue.Err
	}
	return err
}

// redact is a URL without the password that may be in it.
func redact(s string) string {
	if i := strings.LastIndex(s, "@"); i >= 0 {
		return "…@" + s[i+1:]
	}
	return s
}

// Close logs out.
func (s *Session) Close(ctx context.Context) {
	_ = s.sm.Logout(ctx)
	s.c.CloseIdleConnections()
}

// Server is the name of the server that was connected to.
func (s *Session) Server() string { return s.name }

func (s *Session) String() string { return fmt.Sprintf("vSphere at %s", s.name) }
