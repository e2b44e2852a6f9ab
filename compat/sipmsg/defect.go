package sipmsg

import (
	"math/bits"
	"strings"
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
	"missing Call-ID", "missing CSeq", "missing From", "missing To", "missing Via",
	"duplicate Call-ID", "duplicate CSeq", "duplicate From", "duplicate To", "duplicate Content-Length",
	"bad CSeq", "bad From", "bad To", "bad Via", "bad Content-Length", "bad status", "no reason",
	"bad Request-URI", "bad header line", "method mismatch", "no blank line", "short body", "long body", "version case",
}

// String returns the names of the set bits, lowest first, separated by ", "; "" for none.
func (d Defect) String() string {
	var s strings.Builder
	for ; d != 0; d &= d - 1 {
		if s.Len() > 0 {
			s.WriteString(", ")
		}
		if i := bits.TrailingZeros32(uint32(d)); i < len(defectNames) {
			s.WriteString(defectNames[i])
		} else {
			s.WriteString("unknown")
		}
	}
	return s.String()
}
