package login

import (
	"strings"
	"testing"
)

func TestNormalizeName(t *testing.T) {
	for in, want := range map[string]string{
		"iqn.2026-11.org.vtgt:vm1":                         "iqn.2026-11.org.vtgt:vm1",
		"IQN.2026-11.Org.VTGT:Disk-1.a:b":                  "iqn.2026-11.org.vtgt:disk-1.a:b",
		"iqn.2001-04.com.example":                          "iqn.2001-04.com.example",
		"iqn.2001-04.com.example:größe":                    "iqn.2001-04.com.example:größe",
		"eui.02004567A425678D":                             "eui.02004567a425678d",
		"naa.52004567BA64678D":                             "naa.52004567ba64678d",
		"naa.62004567BA64678D0123456789ABCDEF":             "naa.62004567ba64678d0123456789abcdef",
		"iqn.2026-11.o:" + strings.Repeat("x", MaxName-14): "iqn.2026-11.o:" + strings.Repeat("x", MaxName-14),
	} {
		got, err := NormalizeName(in)
		if err != nil || got != want {
			t.Errorf("%s: %s %v", in, got, err)
			continue
		}
		if again, err := NormalizeName(got); err != nil || again != got {
			t.Errorf("%s is not stable: %s %v", got, again, err)
		}
		if p, err := PeerName(in); err != nil || p != want {
			t.Errorf("PeerName(%s): %s %v", in, p, err)
		}
	}
	for _, in := range []string{
		"", "disk", "iqn", "iqn.", "iqn.2026", "iqn.2026-11", "iqn.2026-11.", "iqn.2026-11.:x", "iqn.2026-13.org.x", "iqn.2026-00.org.x",
		"iqn.26-11.org.x", "iqn.2026-1a.org.x", "iqn.2026-11.org..x", "iqn.2026-11..org", "iqn.2026-11.org.:x", "iqn.2026-11.org.x:",
		"iqn.2026-11.org.x:a_b", "iqn.2026-11.org.x:a b", "iqn.2026-11.org.x:a,b", "iqn.2026-11.org.x:a/b", "iqn.2026-11.org.x:\x00", "iqn.2026-11.org.x:\xff", "iqn.2026-11.org.x:☃",
		"eui.02004567A425678", "eui.02004567A425678DD", "eui.g2004567A425678D", "naa.123", "naa.5200456?BA64678D", "wwn.52004567BA64678D",
		"iqn.2026-11.o:" + strings.Repeat("x", MaxName),
	} {
		got, err := NormalizeName(in)
		if err == nil {
			t.Errorf("%q became %q", in, got)
		} else if len(err.Error()) > 400 || !strings.Contains(err.Error(), "iSCSI name") {
			t.Errorf("%q: %v", in, err)
		}
	}
	for _, in := range []string{"", "a,b", "a\nb", "a\x00b", "\xff", strings.Repeat("x", MaxName+1), strings.Repeat("Ⱥ", MaxName/2)} {
		if got, err := PeerName(in); err == nil {
			t.Errorf("PeerName(%q) = %q", in, got)
		}
	}
	if p, err := PeerName("Some_Host 1"); err != nil || p != "some_host 1" {
		t.Error(p, err)
	}
}

func FuzzName(f *testing.F) {
	f.Add("iqn.2026-11.org.vtgt:vm1")
	f.Add(strings.Repeat("x", MaxName+1))
	f.Add(strings.Repeat("Ⱥ", MaxName/2)) // longer in lower case
	f.Fuzz(func(t *testing.T, s string) {
		p, perr := PeerName(s)
		if perr == nil && (p == "" || len(p) > MaxName) {
			t.Fatalf("%q: %q", s, p)
		}
		n, err := NormalizeName(s)
		if err != nil {
			return
		}
		// Whatever we may be called, a peer may call us.
		if perr != nil || p != n {
			t.Fatalf("%q: %q, but PeerName %q %v", s, n, p, perr)
		}
		if m, err := NormalizeName(n); err != nil || m != n {
			t.Fatalf("%q: %q, then %q %v", s, n, m, err)
		}
	})
}
