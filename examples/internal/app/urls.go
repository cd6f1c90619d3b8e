package app

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
)

// checkURLs names the URL of NATS that is malformed by its place: what net/url says of it may
// be a part of the password.
func checkURLs(list string) error {
	urls := strings.Split(list, ",")
	for i, one := range urls {
		one = strings.TrimSpace(one)
		if !strings.Contains(one, "://") { // as nats.Connect takes it
			one = "nats://" + one
		}
		if _, err := url.Parse(one); err != nil {
			return fmt.Errorf(`-server or NATS_URL: URL %d of %d is malformed (in a password "/" is written as %%2F, "," as %%2C, "%%" as %%25)`, i+1, len(urls))
		}
	}
	return nil
}

// userInfo is what may be secret in a URL: a token, or a user's name and password.
var userInfo = regexp.MustCompile(`(\w+://)?[^\s",]*@`)

// redacted returns a text in which URLs stand, without what may be secret in them.
func redacted(text string) string { return userInfo.ReplaceAllString(text, "$1") }
