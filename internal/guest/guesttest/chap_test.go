package guesttest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	chapIQN   = "iqn.2026-11.org.vtgt:chap"
	mutualIQN = "iqn.2026-11.org.vtgt:mutual"
)

// Secrets, 12 to 16 bytes as RFC 7143 §9.2.1 wants them at least.
const (
	goodSecret   = "open-sesame-12"
	badSecret    = "open-barley-12"
	targetSecret = "the-cave-itself"
)

// chapConfig goes behind linuxConfig with moreDisk and chapDisk: two targets that want
// proof, of which one gives it too.
const chapDisk = `
  - {name: safe, store: "mem:", size: 16MiB, shared: true}`

const chapConfig = `
  - {name: chap, luns: [{lun: 0, disk: safe}], iscsi: {iqn: "` + chapIQN + `", chap: {user: guest, secretFile: DIR/guest.secret}}}
  - name: mutual
    luns: [{lun: 0, disk: safe}]
    iscsi: {iqn: "` + mutualIQN + `", chap: {user: guest, secretFile: DIR/guest.secret, mutual: {user: cave, secretFile: DIR/cave.secret}}}
`

// auth are iscsid's settings for user and secret.
func auth(user, secret string, more ...[2]string) settings {
	return append(settings{
		{"node.session.auth.authmethod", "CHAP"},
		{"node.session.auth.username", user},
		{"node.session.auth.password", secret},
	}, more...)
}

// proves adds what the target must prove.
func proves(user, secret string) [][2]string {
	return [][2]string{{"node.session.auth.username_in", user}, {"node.session.auth.password_in", secret}}
}

// chap is the step of TestLinux about authentication.
func (g *linux) chap(t *testing.T, h *host) {
	for name, s := range map[string]string{"guest.secret": goodSecret, "cave.secret": targetSecret} {
		if err := os.WriteFile(filepath.Join(h.dir, name), []byte(s+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	body := fmt.Sprintf(linuxConfig, moreDisk+chapDisk, moreLUN) + strings.TrimPrefix(chapConfig, "\n")
	h.apply(body)

	for _, tc := range []struct {
		name string
		iqn  string
		s    settings
		in   bool
	}{
		{"right", chapIQN, auth("guest", goodSecret), true},
		{"right, SHA1", chapIQN, auth("guest", goodSecret, [2]string{"node.session.auth.chap_algs", "SHA1"}), true},
		{"right, SHA256", chapIQN, auth("guest", goodSecret, [2]string{"node.session.auth.chap_algs", "SHA256"}), true},
		{"right, SHA3-256", chapIQN, auth("guest", goodSecret, [2]string{"node.session.auth.chap_algs", "SHA3-256"}), true},
		{"wrong secret", chapIQN, auth("guest", badSecret), false},
		{"wrong user", chapIQN, auth("ghost", goodSecret), false},
		{"no CHAP", chapIQN, settings{{"node.session.auth.authmethod", "None"}}, false},
		{"mutual, right", mutualIQN, auth("guest", goodSecret, proves("cave", targetSecret)...), true},
		{"mutual, digests", mutualIQN, append(auth("guest", goodSecret, proves("cave", targetSecret)...), digests...), true},
		{"mutual, wrong secret of ours", mutualIQN, auth("guest", badSecret, proves("cave", targetSecret)...), false},
		{"mutual, wrong secret of the target's", mutualIQN, auth("guest", goodSecret, proves("cave", badSecret)...), false},
		{"mutual, wrong user of the target's", mutualIQN, auth("guest", goodSecret, proves("pit", targetSecret)...), false},
		{"mutual wanted, not offered", chapIQN, auth("guest", goodSecret, proves("cave", targetSecret)...), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			begin := time.Now()
			defer func() { t.Logf("%.1f s", time.Since(begin).Seconds()) }()
			err := g.login(tc.iqn, h.port, tc.s)
			g.decided(t, h, tc.iqn, tc.in, err)
			if tc.in && err == nil {
				if err := g.logout(tc.iqn, h.port); err != nil {
					t.Error(err)
				}
			}
			// The next case must not find this one's settings.
			if _, err := g.vm.Run(append(node(tc.iqn, h.port), "-o", "delete")...); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("iscsistart", func(t *testing.T) {
		wrong := [][2]string{{"-u", "guest"}, {"-w", badSecret}}
		out, err := g.iscsistartAs(mutualIQN, h.port, wrong)
		g.decided(t, h, mutualIQN, false, err)
		if err == nil {
			t.Error(out)
		}
		right := [][2]string{{"-u", "guest"}, {"-w", goodSecret}, {"-U", "cave"}, {"-W", targetSecret}}
		out, err = g.iscsistartAs(mutualIQN, h.port, right)
		g.decided(t, h, mutualIQN, true, err)
		if err != nil {
			t.Error(out)
		}
	})
	t.Run("discovery", func(t *testing.T) {
		text := strings.Replace(h.config(body), "iscsi: {portals:", "iscsi: {discovery: {chap: {user: guest, secretFile: "+h.dir+"/guest.secret}}, portals:", 1)
		h.write(text)
		h.vtgt("apply", "-f", h.conf)
		db := []string{"/sbin/iscsiadm", "-m", "discoverydb", "-t", "sendtargets", "-p", fmt.Sprintf("%s:%d", hostAddress, h.port)}
		discover := func(want bool, user, secret string) {
			t.Helper()
			g.run(append(db, "-o", "new")...)
			if user != "" {
				for _, kv := range auth(user, secret) {
					key := strings.Replace(kv[0], "node.session.", "discovery.sendtargets.", 1)
					g.run(append(db, "-o", "update", "-n", key, "-v", kv[1])...)
				}
			}
			// One attempt is enough to know.
			g.run(append(db, "-o", "update", "-n", "discovery.sendtargets.reopen_max", "-v", "0")...)
			out, err := g.vm.Run(append(db, "--discover", "-o", "nonpersistent")...)
			if got := err == nil && strings.Contains(out, chapIQN); got != want {
				t.Errorf("discovery as %q with %q: %v, want %v: %s %v", user, secret, got, want, out, err)
			}
			g.run(append(db, "-o", "delete")...)
		}
		discover(true, "guest", goodSecret)
		discover(false, "guest", badSecret)
		discover(false, "", "")
	})
}

// decided wants both sides to have the same view of a login's outcome.
func (g *linux) decided(t *testing.T, h *host, iqn string, in bool, err error) {
	t.Helper()
	if (err == nil) != in {
		t.Errorf("login: %v", err)
	}
	n := 0
	for _, s := range h.sessions() {
		if s.IQN == iqn {
			n++
		}
	}
	if (n == 1) != in {
		t.Errorf("vtgt has %d sessions with %s", n, iqn)
	}
}
