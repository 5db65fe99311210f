package chap

import (
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"testing"

	"github.com/vtgt/vtgt/iscsi/pdu"
)

func kv(s string) pdu.KeyValue {
	k, v, _ := strings.Cut(s, "=")
	return pdu.KeyValue{Key: k, Value: v}
}

func kvs(ss ...string) (out []pdu.KeyValue) {
	for _, s := range ss {
		out = append(out, kv(s))
	}
	return out
}

func get(t testing.TB, in []pdu.KeyValue, key string) string {
	t.Helper()
	for _, p := range in {
		if p.Key == key {
			return p.Value
		}
	}
	t.Fatalf("no %s in %v", key, in)
	return ""
}

var (
	alice = Account{Credential: Credential{"alice", "alice-has-a-secret"}, Mutual: &Credential{"disk", "the-disk-has-another"}}
	bob   = Account{Credential: Credential{"bob", "bob-has-a-secret"}}
)

// TestResponse holds the hash against vectors that other programs made: printf
// '\x27secret12secret\x01\x02\x03\x04' | openssl dgst.
func TestResponse(t *testing.T) {
	for a, want := range map[Algorithm]string{
		MD5:     "md5",
		SHA1:    "sha1",
		SHA256:  "sha256",
		SHA3256: "sha3-256",
	} {
		got := hex.EncodeToString(Response(a, 0x27, "secret12secret", []byte{1, 2, 3, 4}))
		if got != vectors[want] || a.Size() != len(got)/2 {
			t.Errorf("%v: %s, want %s", a, got, vectors[want])
		}
	}
	if Response(9, 1, "x", nil) != nil || Algorithm(9).Size() != 0 || Algorithm(9).String() != "algorithm 9" {
		t.Error("an unknown algorithm")
	}
}

// answer plays an initiator through to the challenge.
func answer(t testing.TB, x *Exchange, offer string) (a Algorithm, id byte, challenge []byte) {
	t.Helper()
	out, done, st := x.Step(kvs("CHAP_A=" + offer))
	if st != pdu.LoginSuccess || done {
		t.Fatal(done, st, x.Why())
	}
	n, _ := strconv.Atoi(get(t, out, "CHAP_A"))
	i, err := strconv.ParseUint(get(t, out, "CHAP_I"), 10, 8)
	c, err2 := pdu.ParseBinary(get(t, out, "CHAP_C"), 1024)
	if err != nil || err2 != nil || len(c) != Algorithm(n).Size() {
		t.Fatal(out)
	}
	return Algorithm(n), byte(i), c
}

func TestExchange(t *testing.T) {
	for _, c := range []struct {
		offer string
		want  Algorithm
	}{
		{"5", MD5}, {"5,6", SHA1}, {"7,5", SHA256}, {"5,6,7,8", SHA3256}, {"8,7,6,5", SHA3256}, {"9,x,,0x7,300,5", SHA256}, {"6", SHA1},
	} {
		for _, base := range []bool{false, true} {
			for _, who := range []Account{alice, bob} {
				for _, mutual := range []bool{false, true} {
					x := New([]Account{alice, bob}, nil)
					if out, done, st := x.Step(nil); len(out) != 0 || done || st != pdu.LoginSuccess {
						t.Fatal("an empty request", out, done, st)
					}
					a, id, challenge := answer(t, x, c.offer)
					if a != c.want {
						t.Fatalf("%s: %v", c.offer, a)
					}
					enc := pdu.FormatBinary
					if base {
						enc = func(b []byte) string { return "0b" + base64.StdEncoding.EncodeToString(b) }
					}
					proof := kvs("CHAP_N="+who.User, "CHAP_R="+enc(Response(a, id, who.Secret, challenge)))
					mine := bytes.Repeat([]byte{0x5a}, 24)
					if mutual {
						proof = append(proof, kvs("CHAP_I=200", "CHAP_C="+enc(mine))...)
					}
					out, done, st := x.Step(proof)
					switch {
					case mutual && who.Mutual == nil:
						if st != pdu.LoginAuthenticationFailure || done || len(out) != 0 || x.Why() == "" {
							t.Error("a proof without a secret", out, done, st)
						}
						continue
					case st != pdu.LoginSuccess || !done || x.User() != who.User:
						t.Errorf("%v %v: %v: %s", a, who.User, st, x.Why())
					case !mutual && len(out) != 0:
						t.Error("a proof that nobody asked for", out)
					case mutual && (len(out) != 2 || get(t, out, "CHAP_N") != "disk" || get(t, out, "CHAP_R") != pdu.FormatBinary(Response(a, 200, "the-disk-has-another", mine))):
						t.Error("a wrong proof", out)
					}
					if _, done, st := x.Step(proof); done || st != pdu.LoginAuthenticationFailure {
						t.Error("a second proof was taken")
					}
				}
			}
		}
	}
}

// TestFresh: no two challenges are the same, so that an old response proves nothing.
func TestFresh(t *testing.T) {
	seen, ids := map[string]bool{}, map[byte]bool{}
	for range 200 {
		_, id, c := answer(t, New([]Account{alice}, nil), "5")
		if seen[string(c)] {
			t.Fatal("a challenge came twice")
		}
		seen[string(c)], ids[id] = true, true
	}
	if len(ids) < 50 {
		t.Error("identifiers hardly change:", len(ids))
	}
}

// TestHostile: whatever is wrong, the answer is the same and says nothing.
func TestHostile(t *testing.T) {
	right := func(a Algorithm, id byte, c []byte) string { return pdu.FormatBinary(Response(a, id, alice.Secret, c)) }
	for _, c := range []struct {
		name  string
		proof func(a Algorithm, id byte, c []byte) []pdu.KeyValue
	}{
		{"wrong secret", func(a Algorithm, id byte, c []byte) []pdu.KeyValue {
			return kvs("CHAP_N=alice", "CHAP_R="+pdu.FormatBinary(Response(a, id, "alice-has-no-secret", c)))
		}},
		{"unknown user", func(a Algorithm, id byte, c []byte) []pdu.KeyValue {
			return kvs("CHAP_N=carol", "CHAP_R="+right(a, id, c))
		}},
		{"other user", func(a Algorithm, id byte, c []byte) []pdu.KeyValue {
			return kvs("CHAP_N=bob", "CHAP_R="+right(a, id, c))
		}},
		{"empty user", func(a Algorithm, id byte, c []byte) []pdu.KeyValue { return kvs("CHAP_N=", "CHAP_R="+right(a, id, c)) }},
		{"the placeholder's secret", func(a Algorithm, id byte, c []byte) []pdu.KeyValue {
			return kvs("CHAP_N=carol", "CHAP_R="+pdu.FormatBinary(Response(a, id, "nobody has this secret", c)))
		}},
		{"the target's own secret", func(a Algorithm, id byte, c []byte) []pdu.KeyValue {
			return kvs("CHAP_N=disk", "CHAP_R="+pdu.FormatBinary(Response(a, id, alice.Mutual.Secret, c)))
		}},
		{"other identifier", func(a Algorithm, id byte, c []byte) []pdu.KeyValue {
			return kvs("CHAP_N=alice", "CHAP_R="+right(a, id+1, c))
		}},
		{"old challenge", func(a Algorithm, id byte, c []byte) []pdu.KeyValue {
			return kvs("CHAP_N=alice", "CHAP_R="+right(a, id, append([]byte{c[0] + 1}, c[1:]...)))
		}},
		{"other algorithm", func(a Algorithm, id byte, c []byte) []pdu.KeyValue {
			return kvs("CHAP_N=alice", "CHAP_R="+right(SHA1, id, c))
		}},
		{"truncated", func(a Algorithm, id byte, c []byte) []pdu.KeyValue {
			r := right(a, id, c)
			return kvs("CHAP_N=alice", "CHAP_R="+r[:len(r)-2])
		}},
		{"longer", func(a Algorithm, id byte, c []byte) []pdu.KeyValue {
			return kvs("CHAP_N=alice", "CHAP_R="+right(a, id, c)+"00")
		}},
		{"longer in front", func(a Algorithm, id byte, c []byte) []pdu.KeyValue {
			return kvs("CHAP_N=alice", "CHAP_R=0x00"+right(a, id, c)[2:])
		}},
		{"empty response", func(a Algorithm, id byte, c []byte) []pdu.KeyValue { return kvs("CHAP_N=alice", "CHAP_R=") }},
		{"only a prefix", func(a Algorithm, id byte, c []byte) []pdu.KeyValue { return kvs("CHAP_N=alice", "CHAP_R=0x") }},
		{"no number", func(a Algorithm, id byte, c []byte) []pdu.KeyValue { return kvs("CHAP_N=alice", "CHAP_R=0xzz") }},
		{"oversize", func(a Algorithm, id byte, c []byte) []pdu.KeyValue {
			return kvs("CHAP_N=alice", "CHAP_R=0x"+strings.Repeat("00", 1025))
		}},
		{"no response", func(a Algorithm, id byte, c []byte) []pdu.KeyValue { return kvs("CHAP_N=alice") }},
		{"no name", func(a Algorithm, id byte, c []byte) []pdu.KeyValue { return kvs("CHAP_R=" + right(a, id, c)) }},
		{"algorithm again", func(a Algorithm, id byte, c []byte) []pdu.KeyValue {
			return kvs("CHAP_A=5", "CHAP_N=alice", "CHAP_R="+right(a, id, c))
		}},
		{"name twice", func(a Algorithm, id byte, c []byte) []pdu.KeyValue {
			return kvs("CHAP_N=bob", "CHAP_N=alice", "CHAP_R="+right(a, id, c))
		}},
		{"response twice", func(a Algorithm, id byte, c []byte) []pdu.KeyValue {
			return kvs("CHAP_N=alice", "CHAP_R=0x00", "CHAP_R="+right(a, id, c))
		}},
		{"challenge alone", func(a Algorithm, id byte, c []byte) []pdu.KeyValue { return kvs("CHAP_I=1", "CHAP_C=0x0102") }},
		{"reflected", func(a Algorithm, id byte, c []byte) []pdu.KeyValue {
			return kvs("CHAP_N=alice", "CHAP_R="+right(a, id, c), "CHAP_I=1", "CHAP_C="+pdu.FormatBinary(c))
		}},
		{"reflected in base64", func(a Algorithm, id byte, c []byte) []pdu.KeyValue {
			return kvs("CHAP_N=alice", "CHAP_R="+right(a, id, c), "CHAP_I=1", "CHAP_C=0b"+base64.StdEncoding.EncodeToString(c))
		}},
		{"empty challenge", func(a Algorithm, id byte, c []byte) []pdu.KeyValue {
			return kvs("CHAP_N=alice", "CHAP_R="+right(a, id, c), "CHAP_I=1", "CHAP_C=")
		}},
		{"oversize challenge", func(a Algorithm, id byte, c []byte) []pdu.KeyValue {
			return kvs("CHAP_N=alice", "CHAP_R="+right(a, id, c), "CHAP_I=1", "CHAP_C=0x"+strings.Repeat("01", 1025))
		}},
		{"identifier of two bytes", func(a Algorithm, id byte, c []byte) []pdu.KeyValue {
			return kvs("CHAP_N=alice", "CHAP_R="+right(a, id, c), "CHAP_I=256", "CHAP_C=0x0102")
		}},
		{"identifier without a challenge", func(a Algorithm, id byte, c []byte) []pdu.KeyValue {
			return kvs("CHAP_N=alice", "CHAP_R="+right(a, id, c), "CHAP_I=25")
		}},
		{"a challenge and a wrong proof", func(a Algorithm, id byte, c []byte) []pdu.KeyValue {
			return kvs("CHAP_N=alice", "CHAP_R="+right(a, id+1, c), "CHAP_I=25", "CHAP_C=0x0102")
		}},
	} {
		x := New([]Account{alice, bob}, nil)
		a, id, challenge := answer(t, x, "7")
		out, done, st := x.Step(c.proof(a, id, challenge))
		if done || st != pdu.LoginAuthenticationFailure || len(out) != 0 || x.User() != "" {
			t.Errorf("%s: %v, %v, %v", c.name, out, done, st)
		}
		if x.Why() == "" {
			t.Error(c.name, "says nothing")
		}
		if out, done, st := x.Step(kvs("CHAP_N=alice", "CHAP_R="+right(a, id, challenge))); done || st == pdu.LoginSuccess || len(out) != 0 {
			t.Errorf("%s: a second try was allowed", c.name)
		}
	}
	for _, first := range []string{"CHAP_A=", "CHAP_A=4", "CHAP_A=None", "CHAP_A=Reject", "CHAP_A=55", "CHAP_N=alice", "CHAP_R=0x00", "CHAP_A=-5", "CHAP_A=+7", "CHAP_A=05"} {
		x := New([]Account{alice}, nil)
		if out, done, st := x.Step(kvs(first)); done || st != pdu.LoginAuthenticationFailure || len(out) != 0 {
			t.Errorf("%s: %v, %v, %v", first, out, done, st)
		}
	}
	// One secret for both directions: refused here too.
	same := Account{Credential: Credential{"alice", "one-for-both-sides"}, Mutual: &Credential{"disk", "one-for-both-sides"}}
	x := New([]Account{same}, nil)
	a, id, c := answer(t, x, "7")
	if out, done, st := x.Step(kvs("CHAP_N=alice", "CHAP_R="+pdu.FormatBinary(Response(a, id, same.Secret, c)), "CHAP_I=1", "CHAP_C=0x0102")); done || st == pdu.LoginSuccess || len(out) != 0 {
		t.Error("one secret for both directions", out, done, st)
	}
	// Nobody is there.
	x = New(nil, nil)
	a, id, c = answer(t, x, "7")
	if _, done, _ := x.Step(kvs("CHAP_N=", "CHAP_R="+pdu.FormatBinary(Response(a, id, "", c)))); done {
		t.Error("nobody was let in")
	}
	// Keys of others are not understood, and do not disturb.
	x = New([]Account{alice}, nil)
	if out, done, st := x.Step(kvs("X-com.example.key=1", "Y=Reject")); done || st != pdu.LoginSuccess || len(out) != 1 || out[0].Value != "NotUnderstood" {
		t.Error("foreign keys", out, done, st)
	}
	// A restricted choice.
	x = New([]Account{alice}, []Algorithm{SHA256})
	if _, _, st := x.Step(kvs("CHAP_A=5,6,8")); st != pdu.LoginAuthenticationFailure {
		t.Error("an algorithm that is not allowed")
	}
}

func TestCheck(t *testing.T) {
	if err := Check([]Account{alice, bob}); err != nil {
		t.Error(err)
	}
	long := Secret(strings.Repeat("x", 256))
	for _, c := range []struct {
		as   []Account
		want error
	}{
		{[]Account{{}}, ErrNoUser},
		{[]Account{{Credential: Credential{"a\x00", "s"}}}, ErrUser},
		{[]Account{{Credential: Credential{"a", ""}}}, ErrNoSecret},
		{[]Account{{Credential: Credential{"a", long}}}, ErrLongSecret},
		{[]Account{bob, bob}, ErrTwice},
		{[]Account{{Credential: Credential{"a", "s"}, Mutual: &Credential{"b", ""}}}, ErrNoSecret},
		{[]Account{{Credential: Credential{"a", "s"}, Mutual: &Credential{"b", "s"}}}, ErrSame},
		{[]Account{alice, {Credential: Credential{"a", alice.Mutual.Secret}}}, ErrSame},
	} {
		if err := Check(c.as); !errors.Is(err, c.want) {
			t.Errorf("%v, want %v", err, c.want)
		} else if strings.Contains(err.Error(), "secret-") || strings.Contains(err.Error(), string(long)) {
			t.Error("a secret is in an error")
		}
	}
}

// TestSecretsDoNotPrint: a secret that reaches a log or an answer by mistake shows
// nothing.
func TestSecretsDoNotPrint(t *testing.T) {
	var log bytes.Buffer
	l := slog.New(slog.NewTextHandler(&log, nil))
	l.Info("x", "a", alice, "s", alice.Secret, "m", alice.Mutual)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "a", alice, "s", alice.Secret)
	j, err := json.Marshal(alice)
	if err != nil {
		t.Error(err)
	}
	all := log.String() + string(j)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		all += fmt.Sprintf(verb, alice.Secret) + fmt.Sprintf(verb, alice) + fmt.Sprintf(verb, *alice.Mutual)
	}
	for _, s := range []Secret{alice.Secret, alice.Mutual.Secret} {
		if strings.Contains(all, string(s)) || strings.Contains(all, hex.EncodeToString([]byte(s))) {
			t.Error("a secret was printed:", all)
		}
	}
}

func TestAlgorithms(t *testing.T) {
	as := Algorithms()
	for i, a := range as {
		if a.Size() == 0 || i > 0 && a >= as[i-1] {
			t.Error(as)
		}
	}
	if MD5.Size() != md5.Size || SHA3256.Number() != "8" {
		t.Error("sizes and numbers")
	}
}

// FuzzExchange: nobody gets in, and the target proves nothing, without the secret.
func FuzzExchange(f *testing.F) {
	f.Add("CHAP_A=5,7", "CHAP_N=alice CHAP_R=0x00112233445566778899aabbccddeeff", "")
	f.Add("CHAP_A=8", "CHAP_N=alice CHAP_R=0bAAAA CHAP_I=1 CHAP_C=0x01", "CHAP_N=alice")
	f.Add("X=1", "CHAP_A=7", "CHAP_N=bob CHAP_R=1")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		x := New([]Account{alice, bob}, nil)
		challenges := 0
		for _, s := range []string{a, b, c} {
			var in []pdu.KeyValue
			for _, w := range strings.Split(s, " ") {
				in = append(in, kv(w))
			}
			out, done, st := x.Step(in)
			if done {
				t.Fatalf("let in by %q", s)
			}
			if st != pdu.LoginSuccess && (st != pdu.LoginAuthenticationFailure || len(out) > 0) {
				t.Fatalf("%v with %v", st, out)
			}
			for _, o := range out {
				switch o.Key {
				case "CHAP_C":
					challenges++
				case "CHAP_R", "CHAP_N":
					if o.Value != "NotUnderstood" {
						t.Fatalf("a proof: %v", out)
					}
				}
			}
		}
		if challenges > 1 {
			t.Fatal("two challenges")
		}
	})
}
