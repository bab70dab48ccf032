module ask-first

go 1.24
