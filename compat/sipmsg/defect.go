package sipmsg

import (
	"iter"
	"math/bits"
	"slices"
)

// Defect is a set of things wrong with a message that is SIP all the same. It is no verdict by the grammar:
// a bit says that a column of a trace row or the framing is, or may be, not what the sender meant.
type Defect uint32

const (
	MissingCallID          Defect = 1 << iota // no Call-ID (one that is empty is not missing)
	MissingCSeq                               // no CSeq
	MissingFrom                               // no From
	MissingTo                                 // no To
	MissingVia                                // no Via
	DuplicateCallID                           // several Call-ID; the first one counts, as for the next four
	DuplicateCSeq                             // several CSeq
	DuplicateFrom                             // several From
	DuplicateTo                               // several To
	DuplicateContentLength                    // several Content-Length
	BadCSeq                                   // CSeq without a method, with more than two words, or its number not below 2^31 (RFC 3261 §8.1.1.5)
	BadFrom                                   // From empty or not to be read to its end (unclosed quote or bracket, stray text)
	BadTo                                     // the same of To
	BadVia                                    // top Via without transport or host, or not to be read to the end of its parameters
	BadContentLength                          // Content-Length is not a number, or one beyond 31 bits
	BadStatus                                 // status code is not three digits; Status has it as written
	NoReason                                  // status line ends right after the code, without the space of RFC 3261 §7.2
	BadRequestURI                             // Request-URI in angle brackets or with white space inside
	BadHeader                                 // a header line without a colon or without a name; it is passed over
	MethodMismatch                            // CSeq names another method than the request line
	NoBlankLine                               // message ends before the blank line: cut, or never finished
	ShortBody                                 // fewer bytes after the blank line than Content-Length says: cut
	LongBody                                  // more bytes after the blank line than Content-Length says; Body has them all
	VersionCase                               // version not in capitals ("sip/2.0"); see [Message.Parse]
)

var defectNames = [...]string{
	"missing_call_id", "missing_cseq", "missing_from", "missing_to", "missing_via",
	"duplicate_call_id", "duplicate_cseq", "duplicate_from", "duplicate_to", "duplicate_content_length",
	"bad_cseq", "bad_from", "bad_to", "bad_via", "bad_content_length", "bad_status", "no_reason",
	"bad_request_uri", "bad_header", "method_mismatch", "no_blank_line", "short_body", "long_body", "version_case",
}

// DefectNames returns the name of each bit, lowest first: bit 0 is "missing_call_id".
func DefectNames() []string { return slices.Clone(defectNames[:]) }

// Bits iterates over the numbers of the set bits, lowest first: indices of [DefectNames].
func (d Defect) Bits() iter.Seq[int] {
	return func(yield func(int) bool) { d.eachBit(yield) }
}

func (d Defect) eachBit(yield func(int) bool) {
	for ; d != 0; d &= d - 1 {
		if !yield(bits.TrailingZeros32(uint32(d))) {
			return
		}
	}
}

// Append appends the names of the set bits, lowest first, separated by commas: "missing_call_id,short_body".
func (d Defect) Append(dst []byte) []byte {
	for i := range d.Bits() {
		if i >= len(defectNames) {
			break
		}
		if d&(1<<i-1) != 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, defectNames[i]...)
	}
	return dst
}

// String is the text of [Defect.Append]; "" for none.
func (d Defect) String() string { return string(d.Append(nil)) }
