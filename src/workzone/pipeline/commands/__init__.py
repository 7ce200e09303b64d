"""What single commands do beside a run: cascades of several runs, drives, quality, mining, other engines."""
