package chap

import (
	"bytes"
	"crypto/rand"
	"crypto/subtle"
	"slices"
	"strconv"
	"strings"

	"github.com/vtgt/vtgt/iscsi/login"
	"github.com/vtgt/vtgt/iscsi/pdu"
)

// Method is CHAP's value of AuthMethod.
const Method = "CHAP"

// maxBinary is the longest CHAP_C and CHAP_R, bytes (§12.1.3).
const maxBinary = 1024

// stage is what the initiator has to send next.
type stage uint8

const (
	wantAlgorithm stage = iota // CHAP_A
	wantResponse               // CHAP_N and CHAP_R, perhaps CHAP_I and CHAP_C
	ended
)

// Exchange is one authentication, login.Exchange on the target's side. Every failure
// looks the same to the initiator.
type Exchange struct {
	accounts   []Account
	algorithms []Algorithm
	stage      stage
	alg        Algorithm
	id         byte
	challenge  []byte
	why        string
	user       string
}

var _ login.Exchange = (*Exchange)(nil)

// New begins an authentication as one of the accounts, which must not change any
// more. algorithms are those that may be used, preferred ones first; nil:
// [Algorithms].
func New(accounts []Account, algorithms []Algorithm) *Exchange {
	if algorithms == nil {
		algorithms = Algorithms()
	}
	return &Exchange{accounts: accounts, algorithms: algorithms}
}

// Why tells, for the log of the target alone, what was wrong with an exchange that
// has failed. Nothing that the initiator sent is in it.
func (x *Exchange) Why() string { return x.why }

// User is the name of the account that the initiator has proved to be; empty before.
func (x *Exchange) User() string { return x.user }

func (x *Exchange) fail(why string) ([]pdu.KeyValue, bool, pdu.LoginStatus) {
	x.stage, x.why = ended, why
	return nil, false, pdu.LoginAuthenticationFailure
}

// Step is login.Exchange's.
func (x *Exchange) Step(in []pdu.KeyValue) (out []pdu.KeyValue, done bool, st pdu.LoginStatus) {
	var k struct{ a, n, r, i, c *string }
	own := false
	for j := range in {
		var p **string
		switch v := &in[j]; v.Key {
		case "CHAP_A":
			p = &k.a
		case "CHAP_N":
			p = &k.n
		case "CHAP_R":
			p = &k.r
		case "CHAP_I":
			p = &k.i
		case "CHAP_C":
			p = &k.c
		default:
			switch v.Value {
			case "NotUnderstood", "Irrelevant", "Reject":
			default:
				out = append(out, pdu.KeyValue{Key: v.Key, Value: "NotUnderstood"})
			}
			continue
		}
		if *p != nil {
			return x.fail("a key was sent twice")
		}
		*p, own = &in[j].Value, true
	}
	if x.stage == ended {
		return x.fail("the exchange is over")
	}
	if !own {
		// Nothing yet: the initiator fetches the rest of our text, as a rule.
		return out, false, pdu.LoginSuccess
	}
	var answers []pdu.KeyValue
	switch {
	case x.stage == wantAlgorithm && k.a != nil && k.n == nil && k.r == nil && k.i == nil && k.c == nil:
		answers, st = x.challengeFor(*k.a)
	case x.stage == wantResponse && k.a == nil && k.n != nil && k.r != nil && (k.i == nil) == (k.c == nil):
		if answers, st = x.judge(*k.n, *k.r, k.i, k.c); st == pdu.LoginSuccess {
			x.stage, x.user, done = ended, *k.n, true
		}
	default:
		return x.fail("the keys do not belong together here")
	}
	if st != pdu.LoginSuccess {
		return nil, false, st
	}
	return append(out, answers...), done, st
}

// challengeFor chooses an algorithm from the list that was offered and makes the
// challenge.
func (x *Exchange) challengeFor(list string) ([]pdu.KeyValue, pdu.LoginStatus) {
	best := -1
	for _, o := range strings.Split(list, ",") {
		n, err := pdu.ParseNumber(o)
		if err != nil || n > 255 {
			continue
		}
		if i := slices.Index(x.algorithms, Algorithm(n)); i >= 0 && (best < 0 || i < best) {
			best = i
		}
	}
	if best < 0 || x.algorithms[best].Size() == 0 {
		x.fail("none of the hash algorithms offered will do")
		return nil, pdu.LoginAuthenticationFailure
	}
	x.alg = x.algorithms[best]
	// As long as the hash: shorter ones would repeat sooner than it does.
	var b [1 + 32]byte
	_, _ = rand.Read(b[:]) // never fails (package crypto/rand)
	x.id, x.challenge = b[0], b[1:1+x.alg.Size()]
	x.stage = wantResponse
	return []pdu.KeyValue{
		{Key: "CHAP_A", Value: x.alg.Number()},
		{Key: "CHAP_I", Value: strconv.Itoa(int(x.id))},
		{Key: "CHAP_C", Value: pdu.FormatBinary(x.challenge)},
	}, pdu.LoginSuccess
}

// judge takes the initiator's proof and, where i and c are there, makes ours. It does
// the same work for users that are known and for others.
func (x *Exchange) judge(name, response string, i, c *string) ([]pdu.KeyValue, pdu.LoginStatus) {
	bad := func(why string) ([]pdu.KeyValue, pdu.LoginStatus) {
		x.fail(why)
		return nil, pdu.LoginAuthenticationFailure
	}
	var user *Account
	for j := range x.accounts {
		if a := &x.accounts[j]; subtle.ConstantTimeCompare([]byte(a.User), []byte(name)) == 1 {
			user = a
		}
	}
	secret, known := Secret("nobody has this secret"), user != nil
	if known {
		secret = user.Secret
	}
	want := Response(x.alg, x.id, secret, x.challenge)
	got, err := pdu.ParseBinary(response, maxBinary)
	right := err == nil && subtle.ConstantTimeCompare(want, got) == 1
	switch {
	case !known:
		return bad("the user name is unknown")
	case err != nil || len(got) != len(want):
		return bad("the response is no hash of the algorithm")
	case !right || secret == "":
		return bad("the secret is wrong")
	case i == nil:
		return nil, pdu.LoginSuccess
	}

	// Now the initiator wants to know who we are. It is our user: only now does
	// anybody learn whether there is a secret for that.
	id, err := pdu.ParseNumber(*i)
	if err != nil || id > 255 {
		return bad("the initiator's identifier is no byte")
	}
	challenge, err := pdu.ParseBinary(*c, maxBinary)
	switch {
	case err != nil || len(challenge) == 0:
		return bad("the initiator's challenge cannot be read")
	case bytes.Equal(challenge, x.challenge):
		return bad("the initiator sent the target's challenge back")
	case user.Mutual == nil:
		return bad("the initiator asks the target to prove itself, but no mutual secret is configured for its user")
	case user.Mutual.Secret == user.Secret || user.Mutual.Secret == "":
		return bad("one secret serves both directions")
	}
	return []pdu.KeyValue{
		{Key: "CHAP_N", Value: user.Mutual.User},
		{Key: "CHAP_R", Value: pdu.FormatBinary(Response(x.alg, byte(id), user.Mutual.Secret, challenge))},
	}, pdu.LoginSuccess
}
