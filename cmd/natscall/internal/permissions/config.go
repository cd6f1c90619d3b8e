package permissions

import (
	"fmt"
	"io"
	"strconv"
	"strings"
)

// printUsers prints permissions as variables of a nats-server configuration, one for each user.
func printUsers(w io.Writer, users []*user, allowed []permissions) error {
	var text strings.Builder
	for i, u := range users {
		p := allowed[i]
		fmt.Fprintf(&text, "# %s\n%s = {\n", does(u), u.name)
		if len(p.publish) > 0 {
			text.WriteString("  publish: {\n")
			printGrants(&text, p.publish)
		} else {
			// An empty list of allowed subjects would allow all.
			text.WriteString("  publish: { deny: \">\" }\n")
		}
		if len(p.subscribe) > 0 {
			text.WriteString("  subscribe: {\n")
			printGrants(&text, p.subscribe)
		} else {
			text.WriteString("  subscribe: { deny: \">\" }\n")
		}
		if p.answers != 0 {
			fmt.Fprintf(&text, "  allow_responses: { max: %d, expires: %q }\n", p.answers, p.within)
		}
		text.WriteString("}\n\n")
	}
	_, err := io.WriteString(w, strings.TrimSuffix(text.String(), "\n"))
	return err
}

func printGrants(text *strings.Builder, grants []grant) {
	text.WriteString("    allow: [\n")
	for _, g := range grants {
		fmt.Fprintf(text, "      %s  # %s\n", strconv.Quote(g.String()), g.why)
	}
	text.WriteString("    ]\n  }\n")
}

// does says what a user does.
func does(u *user) string {
	var parts []string
	if len(u.serve) > 0 {
		parts = append(parts, "serves "+strings.Join(u.serve, ", "))
	}
	if len(u.call) > 0 {
		parts = append(parts, "calls "+strings.Join(u.call, ", "))
	}
	if u.discover {
		parts = append(parts, "discovers services")
	}
	return u.name + " " + strings.Join(parts, "; ")
}

// printBorders prints exports and imports as variables of a nats-server configuration.
func printBorders(w io.Writer, b borders, all []crossing) error {
	var text strings.Builder
	fmt.Fprintf(&text, "%s_exports = [\n", b.from)
	for _, c := range all {
		kind := "singleton"
		if c.stream {
			kind = "stream"
		}
		fmt.Fprintf(&text, "  { service: %s, response_type: %s, accounts: [%s] }  # %s\n", strconv.Quote(c.subject), kind, b.to, c.why)
	}
	fmt.Fprintf(&text, "]\n\n%s_imports = [\n", b.to)
	for _, c := range all {
		local := ""
		if c.local != c.subject {
			local = ", to: " + strconv.Quote(c.local)
		}
		fmt.Fprintf(&text, "  { service: { account: %s, subject: %s }%s }\n", b.from, strconv.Quote(c.subject), local)
	}
	text.WriteString("]\n")
	_, err := io.WriteString(w, text.String())
	return err
}
