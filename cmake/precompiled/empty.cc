// The owner of the precompiled headers, with the options of their users.
