package loop

import (
	"bytes"
	"math/rand/v2"

	"siptraced/cmd/siptraced/internal/hepmap"
	"siptraced/hep"
)

// A question is questionSize line ends: the two of a SIP ping (RFC 5626 §3.5.1)
// and then some in an order of chance. Kamailio takes every datagram under 20
// bytes for a probe and ignores it; other receivers ignore line ends too.
const questionSize = 16

const ping = "\r\n\r\n"

type question [questionSize]byte

func newQuestion() (q question) {
	copy(q[:], ping)
	for i := len(ping); i < len(q); i++ {
		q[i] = "\r\n"[rand.N(2)]
	}
	return q
}

// IsQuestion reports whether b asks whether a mirror of siptraced sent what came
// from here.
func IsQuestion(b []byte) bool {
	return len(b) == questionSize && bytes.HasPrefix(b, []byte(ping)) && len(bytes.Trim(b, "\r\n")) == 0
}

// LastQuestion is the last one of what came over a stream, if that is nothing but
// questions. One that comes in pieces comes again.
func LastQuestion(b []byte) (q []byte, ok bool) {
	for ; len(b) > 0; b = b[questionSize:] {
		if q = b[:min(questionSize, len(b))]; !IsQuestion(q) {
			return nil, false
		}
	}
	return q, q != nil
}

// AppendAnswer appends the answer to a question: a HEP3 packet.
func AppendAnswer(dst, question []byte) []byte {
	p := hep.Packet{Version: 3, KeepAlive: 1, Vendor: []hep.Chunk{{Vendor: hepmap.Vendor, Type: hepmap.ChunkAnswer, Data: question}}}
	dst, _ = p.Append(dst) // always fits
	return dst
}

// Answer is the question that a packet with these chunks answers, nil for none.
func Answer(chunks []hep.Chunk) []byte {
	for _, c := range chunks {
		if c.Vendor == hepmap.Vendor && c.Type == hepmap.ChunkAnswer {
			return c.Data
		}
	}
	return nil
}
