// Package xheaders reads, cuts and writes the five X-Siptrace headers with
// which Kamailio's siptrace module marks a SIP duplicate (xheaders_read,
// xheaders_write): both ends, time, method and direction of the original.
//
//	var h xheaders.Headers
//	err := xheaders.Read(msg, &h)         // ErrNone, or *MalformedError with its Cause
//	plain := xheaders.Cut(nil, msg)       // the message as it was before marking
//	if h.HasTime { when = h.Time() }      // else: time of arrival
//	out, err := xheaders.Append(nil, plain, &h)
//
// The headers as Kamailio writes them, between the last header and the blank
// line, CRLF after each:
//
//	X-Siptrace-Fromip: udp:192.0.2.10:5060
//	X-Siptrace-Toip: udp:198.51.100.20:5080
//	X-Siptrace-Time: 1700000000 3865        seconds, microseconds, no leading zeros
//	X-Siptrace-Method: INVITE               of the request line; of CSeq in a reply
//	X-Siptrace-Dir: in                      in or out, seen from the traced proxy
//
// # What is read
//
// Kamailio reads only its own text: exact names, fixed order, nothing in
// between. Read takes whatever can be understood in one way only: any order
// and letter case, any or no blanks around the colon, folded values, other
// headers in between, LF line ends, line ends or blanks ahead of the message,
// no blank line at the end. Further decisions:
//
//   - Time "0 0" and an empty method are what trace_mode 4 writes for "not
//     known": HasTime is false and Method is empty, for the caller to fill from
//     the arrival and from the message.
//   - Addresses are not parsed ("hello" is a value), but must be one word of at
//     most 64 characters, the width of the columns fromip and toip. Kamailio's
//     own reader stops at 50.
//   - A method is one word of any length; Kamailio refuses more than 50.
//   - Seconds are refused from the last day of the year 9999 on, microseconds
//     where the column time_us ends (2147483647). Microseconds beyond 999999
//     are kept as they came, and Time carries them over: the same instant.
//     Signs are refused; Kamailio stores a wrapped number as 1969.
//   - The direction is in or out in any letter case. Kamailio stores the first
//     three letters of anything else.
//   - A value followed by a second word is refused: which of the two was meant
//     can't be known.
//   - A set ends where one of its names comes again. The first set counts and
//     is never completed from a second one.
//   - A header without line end, at the end of the message, is refused: its
//     value may have lost its tail.
//   - Nothing after the blank line is looked at.
//
// # What it leaves out
//
// SIP parsing beyond finding header lines, the meaning of an address, and what
// becomes of a message without headers.
package xheaders
