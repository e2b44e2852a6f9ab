// Package flexisip is the language of Flexisip's contextual-log-filter: a
// boolean expression over one SIP message.
//
//	f, err := flexisip.Compile(`request.method == 'INVITE' && from.uri.user contains '+33'`)
//	if err != nil {
//		return err // a *SyntaxError that knows the place
//	}
//	if f.Match(&msg, &rec) {
//
// Variables are those of Flexisip, absent ones are empty, and && and || have one
// precedence and group to the right, as there. Where the message was seen is
// added: $siptrace(src_host) and its kin, as Kamailio's siptrace module names
// them, and $siptraced(defects), what is wrong with the message (sipmsg.Defect). Text outside the grammar is refused also where Flexisip passes over it.
//
// What it leaves out: back-references and look-around in regular expressions,
// but for look-ahead at their beginning; what a match leads to.
package flexisip
