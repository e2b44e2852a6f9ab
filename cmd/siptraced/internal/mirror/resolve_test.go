package mirror

import (
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// The TTL of an answer is the least of its records', within bounds.
func TestTTL(t *testing.T) {
	name := dnsmessage.MustNewName("h.example.")
	answer := func(ttls ...uint32) []byte {
		m := dnsmessage.Message{
			Header:    dnsmessage.Header{Response: true},
			Questions: []dnsmessage.Question{{Name: name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
		}
		for _, ttl := range ttls {
			m.Answers = append(m.Answers, dnsmessage.Resource{
				Header: dnsmessage.ResourceHeader{Name: name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET, TTL: ttl},
				Body:   &dnsmessage.AResource{A: [4]byte{192, 0, 2, 1}},
			})
		}
		b, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, tt := range []struct {
		name string
		msgs [][]byte
		want time.Duration
	}{
		{"none", nil, defaultTTL},
		{"no answer", [][]byte{answer()}, defaultTTL},
		{"least", [][]byte{answer(300, 30), answer(60)}, 30 * time.Second},
		{"zero", [][]byte{answer(0)}, minTTL},
		{"a day", [][]byte{answer(86400)}, maxTTL},
		{"noise", [][]byte{{1, 2, 3}, answer(60)[:30], answer(90)}, 90 * time.Second},
	} {
		r := &ttlReader{}
		for _, m := range tt.msgs {
			r.note(m)
		}
		if got := r.ttl(); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}
