"""The revisions. Ids are numbers, four digits, ascending: code compares them."""
