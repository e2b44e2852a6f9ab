// Package ere runs POSIX extended regular expressions as glibc reads them (regcomp with REG_EXTENDED) on Go's
// engine, whose cost is linear in the text.
//
//	re, err := ere.Compile(`^\<[[:alnum:]]{,3}$`, ere.FoldCase)
//	if err != nil { // an *ere.Error
//		return err
//	}
//	re.MatchString("abc")
//
// Of GNU's extensions \w \W \s \S \b \B \< \> \` \' and {,n} are taken. It leaves out what Go's engine can't do, which
// is refused: back references, equivalence classes [= =], collating elements [. .], counts over 1000 (glibc: 32767).
// Text is read as UTF-8, letter case by Unicode where glibc goes by the locale.
package ere
