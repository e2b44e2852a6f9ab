package loop

import (
	"bytes"
	"math/rand/v2"

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

// vendor is siptraced's vendor id in HEP3, chunkAnswer the type of the chunk
// that answers a question: it repeats the question.
const (
	vendor      = 0x5354
	chunkAnswer = 0x102
)

// AppendAnswer appends the answer to a question: a HEP3 packet.
func AppendAnswer(dst, question []byte) []byte {
	p := hep.Packet{Version: 3, KeepAlive: 1, Vendor: []hep.Chunk{{Vendor: vendor, Type: chunkAnswer, Data: question}}}
	dst, _ = p.Append(dst) // always fits
	return dst
}

// Answer is the question that a packet with these chunks answers, nil for none.
func Answer(chunks []hep.Chunk) []byte {
	for _, c := range chunks {
		if c.Vendor == vendor && c.Type == chunkAnswer {
			return c.Data
		}
	}
	return nil
}
